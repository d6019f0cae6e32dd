"""What `status` shows of ModelDeployments: the list of them, and one in full. Pure, as `view` is."""

from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from finetune_cli import facts
from finetune_cli.facts import Object, part
from finetune_cli.sections import age, conditions, fields, name_and_phase, page_of, short, why
from finetune_cli.view import last_line, phase_text, plain_table, text

_WIDE = ("ENGINE", "BASE", "ADDRESS")
_STATES = {"Serving": "green", "Invalid": "red", "Inert": "red", "RolledBack": "red"}


def deployments_table(deployments: list[Object], now: datetime, *, wide: bool = False) -> Table:
    """One line per deployment, by name; a wide one tells, too, what serves which base where."""
    table = plain_table("DEPLOYMENT", "PHASE", "PODS", "ADAPTERS", "REASON", "AGE", *(_WIDE * wide))
    for found in sorted(deployments, key=facts.name_of):
        status = part(found, "status")
        table.add_row(
            text(facts.name_of(found)),
            phase_text(found),
            _pods(status),
            _adapters_in_words(found),
            text(facts.condition(found, "Ready").get("reason") or "-"),
            age(part(found, "metadata").get("creationTimestamp"), now),
            *(_wide(found) if wide else ()),
        )
    return table


def _wide(found: Object) -> list[Text]:
    words = (_engine(found), short(part(found, "status", "base").get("digest")), part(found, "status").get("url"))
    return [text(each or "-") for each in words]


def deployment_page(found: Object, now: datetime) -> RenderableType:
    """What is served, adapter by adapter, and why what is not is not."""
    sections: list[tuple[str, RenderableType | None]] = [
        ("Adapters", _adapters(found, now)),
        ("Canary", _canary(found, now)),
        ("Conditions", conditions(found, now)),
        ("Why it failed", why(found)),
    ]
    return page_of(_summary(found), sections)


def _summary(found: Object) -> Table:
    status = part(found, "status")
    table = fields()
    name_and_phase(table, "ModelDeployment", found)
    table.add_row("Engine", text(_engine(found)))
    if base := part(status, "base"):
        table.add_row("Base", text(f"{base.get('uri')}, {base.get('digest')}"))
    if merged := part(status, "merged"):
        table.add_row("Merged", text(f"{merged.get('uri')}, {merged.get('digest')}"))
    table.add_row("Pods", text(_pods(status)))
    if status.get("url"):
        table.add_row("Address", text(status["url"]))
    ready = facts.condition(found, "Ready")
    if ready.get("status") != "True":
        table.add_row("Because", text(last_line(ready.get("message")) or "the operator has not seen it yet"))
    return table


def _adapters(found: Object, now: datetime) -> Table | None:
    adapters = facts.items(found, "status", "adapters")
    if not adapters:
        return None
    table = plain_table("NAME", "STATE", "SINCE", "FROM", "GATE", "DIGEST", "MESSAGE")
    for each in adapters:
        state = str(each.get("state"))
        table.add_row(
            text(each.get("name")),
            text(state, _STATES.get(state, "yellow")),
            age(each.get("since"), now),
            text(each.get("fineTuneJob") or each.get("uri") or "-"),
            text(f"{each.get('verdict') or '-'}{' (ignored)' if each.get('gateIgnored') else ''}"),
            text(short(each.get("digest")) or "-"),
            text(last_line(each.get("message")) or "-"),
        )
    return table


def _canary(found: Object, now: datetime) -> Table | None:
    rollout = part(found, "status", "rollout")
    table = fields()
    if canary := part(rollout, "canary"):
        proven = f"proven {age(canary['provenAt'], now)} ago" if canary.get("provenAt") else "not proven yet"
        counts = f"{canary.get('errors') or 0:,} of {canary.get('requests') or 0:,} requests failed"
        table.add_row("Tried now", text(f"{canary.get('key')}: {proven}, {counts}"))
    for each in reversed(facts.items(rollout, "rolledBack")):
        when = age(each.get("time"), now)
        table.add_row("Rolled back", text(f"{each.get('key')} {when} ago: {each.get('reason')}, {each.get('message')}"))
    return table if table.row_count else None


def _engine(found: Object) -> str:
    engine = str(part(found, "spec", "engine").get("type") or "Transformers")
    return f"{engine}, merged" if part(found, "spec").get("adapterMode") == "Merged" else engine


def _pods(status: Object) -> str:
    return f"{status.get('readyReplicas') or 0} of {status.get('replicas') or 0} ready"


def _adapters_in_words(found: Object) -> str:
    adapters = facts.items(found, "status", "adapters")
    wanted = len(facts.items(found, "spec", "adapters"))
    serving = sum(each.get("state") == "Serving" for each in adapters)
    return f"{serving} of {wanted} serving" if wanted else "-"
