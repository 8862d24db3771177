"""Fingerprints of content: equal for equal names, dtypes, shapes and bits, however they are stored."""
