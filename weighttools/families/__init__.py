"""What is known of models and their names: the roles of tensors, the shapes of families."""
