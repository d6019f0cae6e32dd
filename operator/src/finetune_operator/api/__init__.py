"""The custom resources as pydantic models: the single source of the CRDs, the reference and what the operator reads.

Belongs here: fields, bounds, validation rules, condition types and reasons. Must not be here: I/O or decisions.
"""
