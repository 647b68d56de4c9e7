"""The doctor: checks of a server, its queues and output hashes."""
