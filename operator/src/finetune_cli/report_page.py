"""The report of a run as a person gets it: the trainer's page, with what the gate has decided since."""

import io
from html import escape

from rich.console import Console, RenderableType

from finetune_cli import facts
from finetune_cli.facts import Object, items

MARK = b"<!--finetune:gate-->"
"""Where the trainer's page has room for the verdict, which only the operator knows."""

WIDTH = 140


def with_gate(page: bytes, job: Object) -> bytes:
    """The page with the gate's verdict, rule by rule."""
    verdict = facts.condition(job, "GatePassed")
    if not verdict:
        return page
    rules = [
        f"<li>{escape(str(rule.get('outcome')))}: {escape(str(rule.get('message')))}</li>"
        for rule in items(job, "status", "gate", "rules")
    ]
    words = escape(f"{verdict.get('status')} ({verdict.get('reason')}): {verdict.get('message')}")
    section = f'<h2>Gate</h2><p class="note"><b>Passed: {words}</b></p><ul>{"".join(rules)}</ul>'
    return page.replace(MARK, section.encode(), 1)


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
