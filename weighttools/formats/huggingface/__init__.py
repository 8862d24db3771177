"""Directories of safetensors files, with an index or without."""
