"""A TaskGraph whose tasks a redis-worker does: `python -m examples.taskgraph`."""
