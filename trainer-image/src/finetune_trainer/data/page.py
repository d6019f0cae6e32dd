"""The report as one HTML page: no script, nothing loaded, light and dark."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

from finetune_contract.cleaning import LabelCount, Truncation
from finetune_trainer.data.flow import Flow, flow
from finetune_trainer.data.html import count, percent, section, short, table
from finetune_trainer.data.origin import origin
from finetune_trainer.data.statistics import Histogram, SplitStatistics, Statistics

_LABELS = 20
_REASONS = {
    "ExactDuplicate": "the same as another row",
    "NearDuplicate": "nearly the same as another row",
    "BadRow": "could not be read",
    "Empty": "nothing to learn from",
    "TooShort": "under a lower limit",
    "TooLong": "over an upper limit",
    "LowQuality": "broke a quality rule",
    "PersonalData": "had personal data",
    "Contaminated": "shared text with a held-out row",
    "InstructionStripped": "the instruction was cut off",
    "PersonalDataRedacted": "personal data was replaced",
    "MovedToFillSplit": "moved so that a split has enough rows",
}


_SIDES = {"train": "to train on", "validation": "to validate", "test": "to test"}


class Sample(NamedTuple):
    """A row as the model will see it."""

    origin: str
    pieces: list[tuple[str, bool]]
    """Text, and whether it is learnt."""
    tokens: int | None = None
    supervised: int | None = None


def page(statistics: Statistics, samples: Sequence[Sample], lineage: Mapping[str, str]) -> str:
    """The whole page."""
    sections = (
        _head(statistics),
        _tiles(statistics),
        _where_rows_went(statistics),
        _lengths(statistics),
        _truncation(statistics),
        _labels(statistics),
        _turns(statistics),
        _personal_data(statistics),
        _instruction(statistics),
        origin(lineage),
        _samples(samples, has_tokens=statistics.tokenizer is not None),
        "<footer>finetune-operator. This page loads nothing and sends nothing.</footer>",
    )
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    title = escape(f"Dataset {statistics.name}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{style}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _head(statistics: Statistics) -> str:
    tokenizer = f" &middot; tokenizer <code>{statistics.tokenizer[7:19]}</code>" if statistics.tokenizer else ""
    return (
        f"<header><h1>{escape(statistics.name)}</h1><p>{escape(statistics.format)} rows &middot; revision "
        f"<code title='{statistics.digest}'>{statistics.digest[7:19]}</code>{tokenizer}</p></header>"
    )


def _tiles(statistics: Statistics) -> str:
    splits = statistics.splits
    left_out = statistics.rows_read - statistics.rows_kept
    tiles = [
        ("rows read", count(statistics.rows_read)),
        ("rows kept", count(statistics.rows_kept)),
        ("left out", f"{count(left_out)} <small>{percent(left_out, statistics.rows_read)}</small>"),
        *((_SIDES[name], count(split.rows)) for name, split in splits.items()),
    ]
    counts = [split.tokens for split in splits.values() if split.tokens]
    if counts:
        total, learnt = sum(count.total for count in counts), sum(count.supervised for count in counts)
        tiles += [("tokens", short(total)), ("of them learnt", percent(learnt, total))]
    inner = "".join(f"<div><b>{value}</b><span>{label}</span></div>" for label, value in tiles)
    return f'<section class="tiles">{inner}</section>'


def _where_rows_went(statistics: Statistics) -> str:
    parts = [Flow(name, split.rows, f"var(--{name})") for name, split in statistics.splits.items()]
    lost = [
        Flow(dropped.reason, dropped.rows, "var(--lost)", _REASONS.get(dropped.reason, ""))
        for dropped in statistics.dropped
    ]
    body = flow(statistics.rows_read, [*parts, *lost])
    if statistics.changed:
        rows = [
            (count(changed.rows), f"{changed.reason}: {_REASONS[changed.reason]}") for changed in statistics.changed
        ]
        body += "<p>Kept, but not as they were read:</p>" + table(("rows", "why"), rows, "words")
    note = "<p class='note'>Each of these rows is listed with file and line in <code>dropped.jsonl.zst</code>.</p>"
    return section("Where the rows went", body + (note if lost or statistics.changed else ""))


def _lengths(statistics: Statistics) -> str:
    def chart(name: str, split: SplitStatistics) -> str:
        return f"<figure><figcaption>{name}</figcaption>{_bars(split.lengths or split.characters, name)}</figure>"

    charts = "".join(chart(name, split) for name, split in statistics.splits.items())
    heads = ("split", "rows", "p50", "p95", "p99", "longest", "total", "learnt")
    rows = []
    for name, split in statistics.splits.items():
        shape = split.lengths or split.characters
        more = (
            (short(split.tokens.total), percent(split.tokens.supervised, split.tokens.total))
            if split.tokens
            else ("", "")
        )
        values = (shape.p50, shape.p95, shape.p99, shape.max)
        rows.append((name, count(split.rows), *(count(value) for value in values), *more))
    unit = next(iter(statistics.splits.values())).lengths
    known = len(heads) if unit else len(heads) - 2
    return section(
        f"Lengths in {'tokens' if unit else 'characters'}",
        f'<div class="charts">{charts}</div>'
        + table(heads[:known], [row[:known] for row in rows])
        + ("" if unit else "<p class='note'>Name a base model in <code>spec.tokenizer</code> to count tokens.</p>"),
    )  # fmt: skip


def _bars(histogram: Histogram, name: str) -> str:
    width, height, foot = 290, 110, 18
    highest, step = max(histogram.rows), width / max(8, len(histogram.rows))
    bars = []
    for place, rows in enumerate(histogram.rows):
        tall = max((height - 14) * rows / highest, 0.5 if rows else 0)
        start = place * histogram.width
        title = f"{start:,} to {start + histogram.width - 1:,} {histogram.unit}: {rows:,} rows"
        bars.append(
            f'<rect x="{place * step + 1:.1f}" y="{height - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" '
            f'rx="1.5" fill="var(--{name})"><title>{title}</title></rect>'
        )  # fmt: skip
    marks = []
    for label, value in (("p50", histogram.p50), ("p95", histogram.p95)):
        x = min(width - 4.0, value / histogram.width * step)
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{height}" class="mark"/>'
            f'<text x="{x:.1f}" y="9" class="tick" text-anchor="middle">{label}</text>'
        )
    every = max(1, len(histogram.rows) // 6)
    ticks = "".join(
        f'<text x="{place * step:.1f}" y="{height + 13}" class="tick" text-anchor="{"middle" if place else "start"}">'
        f"{short(place * histogram.width)}</text>"
        for place in range(0, len(histogram.rows), every)
        if place * step < width - 24  # a number needs room
    )
    axis = f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" class="axis"/>'
    return (
        f'<svg viewBox="0 0 {width} {height + foot}" role="img" aria-label="lengths of the {name} rows">'
        f"{''.join(bars)}{axis}{''.join(marks)}{ticks}</svg>"
    )


def _truncation(statistics: Statistics) -> str:
    train = statistics.splits["train"].tokens
    if not statistics.truncation or train is None:
        return ""

    def row(cut: Truncation) -> tuple[str, ...]:
        mark = " class='bad'" if cut.tokens > 0.01 * train.total else ""
        return (
            count(cut.max_length), count(cut.rows), f"<span{mark}>{percent(cut.tokens, train.total)}</span>",
            f"{cut.padding_share:.1%}",
        )  # fmt: skip

    heads = ("maxLength", "rows over it", "tokens lost", "padding without packing")
    note = (
        "<p class='note'>For the train rows. A FineTuneJob that would lose more than "
        "<code>limits.truncatedShare</code> (1 % unless set) is refused; with <code>packing</code> "
        "the padding is not computed.</p>"
    )
    return section("What maxLength would cut", table(heads, [row(cut) for cut in statistics.truncation]) + note)


def _labels(statistics: Statistics) -> str:
    train = statistics.splits["train"]
    if not train.labels:
        return ""
    counts = {name: {count.label: count.rows for count in split.labels} for name, split in statistics.splits.items()}

    def bar(label: LabelCount) -> str:
        pieces = []
        for name, by_label in counts.items():
            share = by_label.get(label.label, 0) / highest
            title = f"{name}: {by_label.get(label.label, 0):,} rows"
            pieces.append(f'<i style="width:{share:.4%};background:var(--{name})" title="{title}"></i>')
        rows = sum(by_label.get(label.label, 0) for by_label in counts.values())
        return (
            f'<tr><th>{escape(label.label)}</th><td class="bar">{"".join(pieces)}</td>'
            f"<td>{count(rows)}</td><td>{percent(rows, total)}</td></tr>"
        )

    shown = train.labels[:_LABELS]
    total = statistics.rows_kept
    highest = max(sum(by_label.get(label.label, 0) for by_label in counts.values()) for label in shown)
    more = len(train.labels) - len(shown)
    note = f"<p class='note'>and {more} more labels</p>" if more else ""
    note += _only_trained_on(statistics)
    key = "".join(f'<span><i style="background:var(--{name})"></i>{name}</span>' for name in counts)
    body = f'<table class="labels">{"".join(map(bar, shown))}</table><p class="key">{key}</p>{note}'
    return section("Labels", body)


def _only_trained_on(statistics: Statistics) -> str:
    """Labels with too few rows for every split: nothing will be known of how well they are learnt."""
    held = [split for name, split in statistics.splits.items() if name != "train"]
    # Of very many labels only the commonest are known.
    if not held or any(split.other_labels for split in statistics.splits.values()):
        return ""
    measured = {label.label for split in held for label in split.labels}
    alone = [escape(label.label) for label in statistics.splits["train"].labels if label.label not in measured]
    names = ", ".join(f"<b>{name}</b>" for name in alone[:5]) + (", ..." if len(alone) > 5 else "")
    return f"<p class='note'>Only trained on, in no held-out row: {names}.</p>" if alone else ""


def _turns(statistics: Statistics) -> str:
    turns = statistics.splits["train"].turns
    if not turns:
        return ""
    rows = [(turn, count(number)) for turn, number in turns.items()]
    return section("Turns of the train conversations", table(("messages", "rows"), rows))


def _personal_data(statistics: Statistics) -> str:
    if not statistics.personal_data:
        return ""
    rows = [(found.kind, count(found.rows), count(found.count)) for found in statistics.personal_data]
    note = "<p class='note'>Found by patterns and check digits. Names and addresses of people are not looked for.</p>"
    return section("Personal data", table(("kind", "rows", "found"), rows) + note)


def _instruction(statistics: Statistics) -> str:
    if not statistics.instruction:
        return ""
    note = "<p class='note'>Leave it out of requests to the tuned model, too.</p>"
    return section("The instruction that was cut off", f"<pre>{escape(statistics.instruction)}</pre>{note}")


def _samples(samples: Sequence[Sample], *, has_tokens: bool) -> str:
    shown = "".join(_sample(sample) for sample in samples)
    how = "as the model will see them" if has_tokens else "as they are stored"
    note = "<p class='note'>What is grey is read but not learnt. Personal data is replaced here in any case.</p>"
    return section(f"{len(samples)} rows to train on, {how}", note + shown)


def _sample(sample: Sample) -> str:
    text = "".join(
        f"<span class='learnt'>{escape(piece)}</span>" if is_learnt else escape(piece)
        for piece, is_learnt in sample.pieces
    )
    counts = f" &middot; {sample.tokens:,} tokens, {sample.supervised:,} learnt" if sample.tokens else ""
    return f"<article><h3>{escape(sample.origin)}{counts}</h3><pre>{text}</pre></article>"
