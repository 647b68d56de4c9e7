"""Connections to Redis: addresses, clients of each kind, calls, error translation."""
