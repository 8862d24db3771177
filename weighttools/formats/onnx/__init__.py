"""ONNX models: their initializers and Constant nodes."""
