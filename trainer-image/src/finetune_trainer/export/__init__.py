"""What leaves a run: the artifact's files, its probe, and the outcome.

Must not be here: training or scoring; nothing here changes a weight.
"""
