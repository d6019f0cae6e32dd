"""Batch inference: many requests through one model, resumable, to files in OpenAI's batch format.

Belongs here: the input as requests, shards in the store, batches by length, the output and error files. Must not be
here: how rows become text and what many of them begin with (the trainer's `render` and `openings`), what a request may
say and how a batch is decoded (the server's `openai_wire` and `decoding`): the same request has the same answer here as
from a ModelDeployment.

The way of a row: `lines` or `rows` (an Item) -> `asking` (a request, or what is wrong with it) -> `answering` (a shard,
by length) -> `shards` (sealed in the store) -> `publishing` (two files).
"""
