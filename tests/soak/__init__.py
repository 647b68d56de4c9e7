"""A soak: a supervisor under load and faults, measured whenever it is idle. `python -m tests.soak --help`."""
