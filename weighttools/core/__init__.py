"""The types everything else is made of. Nothing here opens a file, and importing it loads no NumPy."""
