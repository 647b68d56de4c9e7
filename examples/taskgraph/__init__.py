"""A TaskGraph with its tasks run by redis-worker: `python -m examples.taskgraph`."""
