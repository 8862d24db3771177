"""PyTorch's files: zip archives, legacy files, distributed checkpoints, TorchScript."""
