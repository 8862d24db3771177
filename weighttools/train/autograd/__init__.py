"""The tape: variables, operations and their pullbacks, recomputation."""
