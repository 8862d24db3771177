"""The arithmetic under the statistics: blocked NumPy, counts of bit patterns, float64, and compiled code by numba."""
