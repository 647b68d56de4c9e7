"""Parts that run in separate processes."""
