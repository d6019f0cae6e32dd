"""Benchmarks: each prints a table and writes `.local/bench/<name>.json`. Figures go to docs/developing/performance.md."""
