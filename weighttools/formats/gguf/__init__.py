"""GGUF files: header, metadata, tensors, split files."""
