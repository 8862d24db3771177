"""safetensors files: header, values, bitmasks."""
