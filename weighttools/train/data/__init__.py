"""Training data: rows of files, tokens, tables and arrays; each a length, and a batch for any choice of samples."""
