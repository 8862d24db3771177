"""What a model is trained for: losses, and figures that add up over batches."""
