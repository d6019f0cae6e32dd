"""Plan in, artifact and result out: the commands of the trainer image.

Belongs here: dataset preparation (`data`), what a training would need (`preflight`), training (`train`), evaluation
(`evaluate`), what is published (`export`). Must not be here: Kubernetes, serving, downloads while a GPU waits. Imports
the contract and the store, nothing else of ours; torch and its friends only inside all of these but `data`.
"""
