"""Functions as tasks: decorated functions, called by name with typed arguments through a queue (docs/functions.md)."""
