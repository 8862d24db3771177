"""From a checkpoint to a model with a head, and back to files that others load."""
