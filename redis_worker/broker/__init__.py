"""Redis: the only package that imports redis-py. Keys, connections, queues, upkeep, the client."""
