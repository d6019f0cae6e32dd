"""The Transformers engine: one base model and its LoRA adapters behind OpenAI's and TGI's routes.

Belongs here: loading what a `ServingPlan` names, decoding batches that mix adapters, the HTTP routes and their metrics.
Must not be here: training, Kubernetes, downloads (pods serve offline), or proof that an adapter is live: that is the
prober's, which sees this server only through HTTP like any other engine.

The way of a request: `gate` (`keys`, limits) -> `openai_routes` or `tgi_routes` (shape) -> `engine` (queue, one model
thread) -> `decoding` (one batch) -> `model` (forward) -> `mixing` (adapters by row) -> `sampling` and `text` (one row).
"""
