"""Example programs, each for one use of redis_worker: `python -m examples.<name>`."""
