"""What a developer's machine and CI need around the product: a local cluster, images, benchmarks.

Standard library only, Python 3.11: these modules run before any virtual environment exists
(`python3 -m tools.cluster up`).
Nothing in here is shipped, and nothing that is shipped imports from here.
"""
