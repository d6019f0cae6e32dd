"""The report of a run as a person gets it: the trainer's page, with what the gate has decided since."""

import io
from html import escape

from rich.console import Console, RenderableType

from finetune_cli import facts
from finetune_cli.facts import Object, finite, items, part

MARK = b"<!--finetune:gate-->"
"""Where the trainer's page has room for the verdict, which only the operator knows."""

_FIRST_COLUMN, _COLUMN = 32, 48
"""Characters: nothing of a comparison has to be folded."""

_SIGNS = {"Passed": "\u2713", "Failed": "\u2717", "Skipped": "\u2013"}
"""As `kubectl finetune watch` shows them."""


COST_MARK = b"<!--finetune:cost-->"
"""Where it has room for what the run has cost, which only the operator adds up."""


def with_status(page: bytes, job: Object) -> bytes:
    """The page with what the operator knows: the gate's verdict, rule by rule, and the cost."""
    return page.replace(MARK, _gate(job).encode(), 1).replace(COST_MARK, _cost(job).encode(), 1)


def _gate(job: Object) -> str:
    verdict = facts.condition(job, "GatePassed")
    if not verdict:
        return ""
    rules = [
        f'<li class="{escape(outcome)}"><b title="{escape(outcome)}">{_SIGNS.get(outcome, "?")}</b>'
        f"{escape(str(rule.get('message')))}</li>"
        for rule in items(job, "status", "gate", "rules")
        if (outcome := str(rule.get("outcome")))
    ]
    # The condition's message repeats the rules, where there are some.
    words = str(verdict.get("reason")) if rules else f"{verdict.get('reason')}: {verdict.get('message')}"
    status = escape(str(verdict.get("status")))
    return f'<h2>Gate</h2><p class="verdict {status}">{escape(words)}</p><ul class="rules">{"".join(rules)}</ul>'


def _cost(job: Object) -> str:
    cost, speed = part(job, "status", "cost"), part(job, "status", "speed")
    hours, lost, amount = (finite(cost.get(name)) for name in ("gpuHours", "lostGpuHours", "amount"))
    million, tokens = finite(speed.get("costPerMillionTokens")), finite(speed.get("breakEvenTokens"))
    rows = []
    if hours is not None:
        rows.append(("Training", f"{hours:,.4g} GPU-hours in all attempts, {lost or 0:,.3g} of them lost"))
    if amount is not None:
        rows.append(("Price", f"{amount:,.2f} {cost.get('currency') or ''}"))
    if million is not None:
        rows.append(("A million tokens", f"{million:,.4g} {speed.get('currency') or ''} at the measured speed"))
        even = (
            f"after {tokens:,.0f} tokens" if tokens is not None else "not against the API price of the settings, if any"
        )
        rows.append(("Pays off", even))
    if not rows:
        return '<p class="soft">No cost is known: no accelerators were used.</p>'
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in rows) + "</dl>"


def page_of(table: RenderableType, title: str, columns: int) -> str:
    """What the terminal shows of a table with so many columns besides the first, as a page that loads nothing."""
    console = Console(record=True, width=_FIRST_COLUMN + columns * _COLUMN, file=io.StringIO(), highlight=False)
    console.print(table)
    body = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    style = "body{font:14px ui-monospace,monospace;color-scheme:light dark;margin:24px}pre{font:inherit}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style><body>{body}</body></html>\n"
    )
