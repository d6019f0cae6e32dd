"""From rows and a base model to weights.

Belongs here: rows as text, token sequences, the model and its adapter, the loop and its checkpoints, and the edge
of the `train` command. Must not be here: how good the result is (`evaluate`), what is published (`export`).
"""
