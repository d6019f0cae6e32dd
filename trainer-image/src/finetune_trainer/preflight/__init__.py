"""Before a GPU is asked for: what a training would need, found on fake tensors in a CPU pod.

The rows go through the code that training uses; the model is a shape without weights. Nothing here trains, and nothing
that training needs lives here.
"""
