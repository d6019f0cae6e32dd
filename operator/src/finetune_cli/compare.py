"""`compare`: several jobs side by side. Pure."""

from rich.console import Group, RenderableType
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_cli.view import METRICS, interval, phase_text, plain_table, text
from finetune_contract.evaluating import TUNED, Metric, clearly_better, p_words


def comparison(jobs: list[Object], baselines: list[str] | None = None) -> RenderableType:
    """A column for each job: what it is made of, then every metric of its tuned model and its lead over each baseline.

    Bold is a figure whose interval lies apart from those of all other jobs: jobs are not compared row by row.

    Args:
        jobs: As the API server has them.
        baselines: The only ones whose comparison is shown; None: all.
    """
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
    for metric in _named(jobs, "metric"):
        table.add_row(text(metric), *_cells(jobs, metric))
        for system in _named(jobs, "system"):
            if system == TUNED or (baselines and system not in baselines):
                continue
            leads = [_lead(job, metric, system) for job in jobs]
            if any(leads):
                table.add_row(text(f"  less {system}"), *(each or text("-") for each in leads))
    for title, kind in (("Gate", "GatePassed"), ("Ready", "Ready")):
        if any(facts.condition(job, kind) for job in jobs):
            table.add_row(title, *(_word(facts.condition(job, kind).get("status")) for job in jobs))
    table.add_row("GPU hours", *(f"{(part(job, 'status').get('gpuSecondsTotal') or 0) / 3600:.2f}" for job in jobs))
    return Group(table, *_warnings(jobs))


def _named(jobs: list[Object], what: str) -> list[str]:
    """The metrics or systems of all jobs, in the order of the first that has them."""
    return list(
        dict.fromkeys(str(score.get(what)) for job in jobs for score in facts.items(job, "status", "evaluation"))
    )


def _score(job: Object, metric: str, system: str) -> Object:
    scores = facts.items(job, "status", "evaluation")
    return next((each for each in scores if (each.get("metric"), each.get("system")) == (metric, system)), {})


def _cells(jobs: list[Object], metric: str) -> list[Text]:
    scores = [_score(job, metric, TUNED) for job in jobs]
    cells = []
    for at, score in enumerate(scores):
        value = facts.finite(score.get("value"))
        is_best = metric in METRICS and _is_apart(METRICS[metric], score, scores[:at] + scores[at + 1 :])
        cells.append(text("-" if value is None else f"{value:.3f}{interval(score)}", "bold green" if is_best else ""))
    return cells


def _is_apart(metric: Metric, score: Object, others: list[Object]) -> bool:
    """Whether the whole interval is better than every other one."""
    known = [each for each in others if facts.finite(each.get("value")) is not None]
    ours, theirs = ("low", "high") if metric.higher_is_better else ("high", "low")
    end, ends = facts.finite(score.get(ours)), [facts.finite(each.get(theirs)) for each in known]
    if end is None or not ends:
        return False
    return all(each is not None and (end > each if metric.higher_is_better else end < each) for each in ends)


def _lead(job: Object, metric: str, system: str) -> Text | None:
    """The tuned model's figure less the baseline's, its interval and p-value, green or red beyond doubt."""
    score, tuned = _score(job, metric, system), facts.finite(_score(job, metric, TUNED).get("value"))
    value, difference = facts.finite(score.get("value")), facts.finite(score.get("difference"))
    if difference is None and value is not None and tuned is not None:
        difference = tuned - value  # of an older trainer
    if difference is None:
        return None
    p_value = facts.finite(score.get("pValue"))
    words = f"{difference:+.3f}{interval(score, 'differenceLow', 'differenceHigh', '+.3f')}"
    better = clearly_better(METRICS[metric], {system: (difference, p_value)}) if metric in METRICS else set()
    style = "green" if TUNED in better else "red" if better else ""
    return text(words if p_value is None else f"{words} {p_words(p_value)}", style)


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
