"""Pure builders of child objects: model in, dict out.

Everything with an `apiVersion` is built here: what an object looks like is decided here, whether it should exist is
not.
"""
