"""Fuzzing of the readers: a harness to run by hand, and the inputs it found worth keeping."""
