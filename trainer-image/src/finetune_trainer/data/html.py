"""Pieces of the report's page."""

from collections.abc import Iterable, Sequence


def section(title: str, body: str) -> str:
    """A card of the page."""
    return f"<section><h2>{title}</h2>{body}</section>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    """Cells are HTML already; of `words`, all columns begin at the left."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    top = f"<tr>{head}</tr>" if any(heads) else ""
    return f'<div class="scroll"><table class="{kind}">{top}{body}</table></div>'


def count(number: int) -> str:
    """1,234."""
    return f"{number:,}"


def short(number: int) -> str:
    """1.23M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,}"


def percent(part: int, whole: int) -> str:
    """12.3%; what is little is not nothing."""
    if part and part < whole / 2000:
        return "&lt;0.1%"
    return f"{part / whole:.1%}" if whole else "0%"
