"""What differs between two checkpoints: tensors that belong together, figures of each pair, and what explains them."""
