"""HTTP: health, readiness and metrics of a worker. Optional: the extra `web`."""
