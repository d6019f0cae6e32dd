"""`compare`: several jobs side by side. Pure."""

from rich.console import Group, RenderableType
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_cli.view import phase_text, plain_table, text
from finetune_contract.evaluating import TUNED, Metric

_WORDS = {metric.value: metric for metric in Metric}


def comparison(jobs: list[Object]) -> RenderableType:
    """A column for each job: what it is made of, then every metric of its tuned model, the best one bold."""
    table = plain_table("", *(facts.name_of(job) for job in jobs))
    table.add_row("Phase", *(phase_text(job) for job in jobs))
    for title, path in (
        ("Method", ("spec", "method")),
        ("Dataset", ("spec", "dataset", "name")),
        ("Epochs", ("spec", "hyperparameters", "epochs")),
        ("Learning rate", ("spec", "hyperparameters", "learningRate")),
        ("Seed", ("spec", "hyperparameters", "seed")),
    ):
        table.add_row(title, *(_word(part(job, *path[:-1]).get(path[-1])) for job in jobs))
    table.add_row("Adapter", *(_adapter(job) for job in jobs))
    for metric in dict.fromkeys(str(score.get("metric")) for job in jobs for score in _scores(job)):
        table.add_row(metric, *_cells(jobs, metric))
    for title, kind in (("Gate", "GatePassed"), ("Ready", "Ready")):
        if any(facts.condition(job, kind) for job in jobs):
            table.add_row(title, *(_word(facts.condition(job, kind).get("status")) for job in jobs))
    table.add_row("GPU hours", *(f"{(part(job, 'status').get('gpuSecondsTotal') or 0) / 3600:.2f}" for job in jobs))
    return Group(table, *_warnings(jobs))


def _scores(job: Object) -> list[Object]:
    return [each for each in facts.items(job, "status", "evaluation") if each.get("system") == TUNED]


def _cells(jobs: list[Object], metric: str) -> list[Text]:
    found = [next((each for each in _scores(job) if each.get("metric") == metric), {}) for job in jobs]
    values = [facts.finite(each.get("value")) for each in found]
    known = [value for value in values if value is not None]
    best = None
    if metric in _WORDS and len(set(known)) > 1:
        best = max(known) if _WORDS[metric].higher_is_better else min(known)
    cells = []
    for score, value in zip(found, values, strict=True):
        low, high = facts.finite(score.get("low")), facts.finite(score.get("high"))
        interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
        style = "bold green" if value is not None and value == best else ""
        cells.append(text("-" if value is None else f"{value:.3f}{interval}", style))
    return cells


def _warnings(jobs: list[Object]) -> list[Text]:
    """What makes figures hard to compare."""
    runs = [part(job, "status", "run", "inputs") for job in jobs]
    said = []
    if len({str(run.get("dataset")) for run in runs}) > 1:
        said.append("The jobs were measured on different dataset revisions.")
    spec = [part(job, "spec", "evaluation") for job in jobs]
    if len({(str(one.get("split", "test")), str(one.get("maxRows", 200))) for one in spec}) > 1:
        said.append("The jobs were measured on different rows (spec.evaluation.split or maxRows).")
    return [Text(words, style="yellow") for words in said]


def _adapter(job: Object) -> Text:
    adapter = part(job, "spec", "adapter")
    kind = str(adapter.get("type", "LoRA"))
    return text("every weight" if kind == "None" else f"{kind} rank {adapter.get('rank', 16)}")


def _word(value: object) -> Text:
    return text("-" if value is None else value)
