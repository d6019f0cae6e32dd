"""How good the tuned model is, beside its baselines.

Belongs here: held-out rows, greedy answers, losses, scores with intervals. Must not be here: training, verdicts (the
operator's gate decides).
"""
