"""Benchmarks: each prints a table and writes `.local/bench/<name>.json` as {"rows": [{"name", "value", "unit"}]}.

Belongs here: what is measured and against whom. Must not be here: anything that the operator or the trainer needs.
"""
