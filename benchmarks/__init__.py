"""Speed and memory of a worker, compared with a bare loop on the same machine (docs/benchmarks.md)."""
