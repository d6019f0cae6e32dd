"""`kubectl finetune`: what people ask of their FineTuneJobs, from a terminal or a CI job.

Belongs here: commands (`__main__`, thin), the only talk to the API server (`cluster`), what a raw resource says
(`facts`) and how it looks (`view`), both pure, and the errors a user sees (`errors`).
Must not be here: the operator's models. The CLI reads resources as plain dictionaries, so that an older CLI shows what
a newer operator wrote; a field it does not know, or that is missing, is never an error.
"""
