"""The command line: thin commands with help texts, which call the library.

Imports are lazy, so that `redis-worker --help` answers at once.
"""
