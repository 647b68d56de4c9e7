"""Queues over Redis: claims, leases, settlement, recovery, delays, dead letters."""
