"""NumPy's files: NPY, streams of NPY, and NPZ archives."""
