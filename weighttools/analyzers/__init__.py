"""What can be said of a checkpoint."""
