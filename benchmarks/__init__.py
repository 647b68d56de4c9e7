"""How fast a worker is and how much memory it takes, beside a bare loop on the same machine (docs/benchmarks.md)."""
