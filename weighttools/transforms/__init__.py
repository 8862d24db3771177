"""Functions that return a transform: TensorMap to TensorMap, lazily, specs first."""
