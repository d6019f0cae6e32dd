"""`make bench-operator`: what the operator needs at scale, beside what a bare client needs for the same writes.

A control plane of its own with fake nodes (KWOK) that run no containers, so what is measured is the operator and the
API server. `python -m tools.bench.operator [--jobs 1000] [--resting 10000]`.
"""
