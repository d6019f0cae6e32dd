"""The report of a run as a person gets it: the trainer's page, with what the gate has decided since."""

import io
from html import escape

from rich.console import Console, RenderableType

from finetune_cli import facts
from finetune_cli.facts import Object, finite, items, part

MARK = b"<!--finetune:gate-->"
"""Where the trainer's page has room for the verdict, which only the operator knows."""

WIDTH = 140


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
        f"<li>{escape(str(rule.get('outcome')))}: {escape(str(rule.get('message')))}</li>"
        for rule in items(job, "status", "gate", "rules")
    ]
    words = escape(f"{verdict.get('status')} ({verdict.get('reason')}): {verdict.get('message')}")
    return f'<h2>Gate</h2><p class="note"><b>Passed: {words}</b></p><ul>{"".join(rules)}</ul>'


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


def page_of(table: RenderableType, title: str) -> str:
    """What the terminal shows, as a page that loads nothing."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(table)
    body = console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
    style = "body{font:14px ui-monospace,monospace;color-scheme:light dark;margin:24px}pre{font:inherit}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style><body>{body}</body></html>\n"
    )
