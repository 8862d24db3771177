"""The NumPy training core."""
