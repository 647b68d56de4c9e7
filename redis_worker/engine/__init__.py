"""The engine: claims, runs and settles tasks. It knows ports and vocabulary, and nothing of Redis."""
