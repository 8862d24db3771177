"""What can be done with a checkpoint, a verb a file: the same for Python and the command line."""
