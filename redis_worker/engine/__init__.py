"""The engine: claims, runs and settles tasks. It depends on ports and vocabulary, not on Redis."""
