"""What `validate` has found, as tests compare it."""

from finetune_cli.offline.problems import Level
from finetune_cli.offline.validation import Report


def errors(report: Report) -> list[str]:
    return [f"{one.path}: {one.message}" for one in report.findings if one.level is Level.ERROR]
