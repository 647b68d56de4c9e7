"""Programs that show one way each of using redis_worker: `python -m examples.<name>`."""
