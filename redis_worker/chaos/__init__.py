"""Chaos: workers at work, faults that a seed determines, and a ledger that follows each task."""
