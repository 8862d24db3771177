"""HDF5 files, listed by a confined child process, and Keras's files among them."""
