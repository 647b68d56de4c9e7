"""Operator queries and commands: status, depth, dead letters, pause, doctor."""
