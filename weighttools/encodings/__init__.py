"""How elements are packed: blocks of small integers and their scales, to float32 and back."""
