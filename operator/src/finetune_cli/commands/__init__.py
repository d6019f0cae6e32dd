"""Commands, one subject a module: options in, one call, an answer and an exit code out."""
