"""Experiment trackers (MLflow, Weights & Biases): told of metrics and resolved hyperparameters, and of nothing else.

They live in a process of their own, at the other end of a pipe that training never waits for: a tracker that is down,
slow or wrong is a warning, never a stop. Nothing here is imported, and nobody is told anything, unless the job says so.
"""
