"""`make bench-serving`: the Transformers engine beside `transformers serve` and one-at-a-time peft.

Belongs here: models and adapters to serve, processes that serve them, a client that costs little, and the figures.
Must not be here: anything that the server itself needs.
"""
