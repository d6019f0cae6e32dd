"""Benchmarks: each prints a table and writes `.local/bench/<name>.json`.

Figures that were measured go to docs/developing/performance.md.
"""
