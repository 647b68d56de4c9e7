"""The command line: thin commands, each of which says what it does and calls the library.

Nothing heavy is imported before it is needed: `redis-worker --help` must answer at once.
"""
