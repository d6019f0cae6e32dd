"""`kubectl finetune`: what people ask of their FineTuneJobs, from a terminal or a CI job.

Belongs here: commands (`__main__` and `commands`, thin); the only talk to the API server (`cluster`, `objects`), why it
said no (`explanations`) and the errors a user sees (`errors`); what a raw resource says (`facts`) and how it looks
(`view`, `page`), both pure; files checked without a cluster (`offline`) and written (`scaffold`); answers of served
models (`conversation`); names for a shell (`completion`).
Must not be here: the operator's models. The CLI reads resources as plain dictionaries, so that an older CLI shows what
a newer operator wrote; a field it does not know, or that is missing, is never an error. Only `offline` knows the
schemas, those of its own release, as the generated CRDs in `crds`.
"""
