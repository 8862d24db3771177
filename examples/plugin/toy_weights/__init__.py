"""What a package adds to weighttools: a format, an analyzer and a transform, each found by its entry point."""
