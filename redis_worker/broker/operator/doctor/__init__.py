"""The doctor: checks of a server, of queues and of output hashes."""
