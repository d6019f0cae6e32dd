"""Pure decisions: (resource, observed facts, now) -> Outcome.

No I/O, no clock, no Kopf. Each kind has `references` (which other objects it needs to see) and `reconcile`.
"""
