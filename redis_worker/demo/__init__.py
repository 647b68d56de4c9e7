"""The demo: real workers, a kill -9 in the middle, and a ledger with the outcome of every task."""
