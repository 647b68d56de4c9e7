"""Mutation tests: faults put into the package on purpose, each of which some test must find (docs/reliability.md)."""
