"""HTTP: whether a worker lives and is ready, and its metrics. Optional: the extra `web`."""
