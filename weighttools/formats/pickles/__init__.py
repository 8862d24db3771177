"""Pickles as data: a machine over their opcodes that imports and calls nothing, and what a check says of them."""
