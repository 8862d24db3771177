"""What a write will do, and doing it."""
