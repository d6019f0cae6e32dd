"""Dataset preparation: read, normalise, clean, split, publish one immutable revision.

Belongs here: everything between a Dataset's source and its Parquet files in the store. Must not be here: torch,
tokenizers, Kubernetes. Each step is one module, and prepare.py calls them in order:

    sources -> read -> formats -> clean -> split -> revision
"""
