"""Which series and labels a PromQL expression asks for, found without a parser; promtool says whether it parses."""

import re

AGGREGATIONS = {"sum", "max", "min", "avg", "count"}
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "offset", "bool", "inf", "nan", *AGGREGATIONS}
_TEXT = re.compile(r'"[^"]*"')
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w|:|\s*\()")


def series_of(expression: str) -> set[str]:
    """Names of the series."""
    plain = _RANGE.sub("", _GROUPING.sub("", re.sub(r"\{[^}]*\}", "", _TEXT.sub("", expression))))
    return {name for name in _NAME.findall(plain) if name not in KEYWORDS}


def matched_labels(expression: str) -> set[tuple[str, str]]:
    """(series, label) of every matcher."""
    found = set()
    for name, matchers in _SELECTOR.findall(_TEXT.sub('""', expression)):
        found |= {(name, label) for label in re.findall(r"([a-zA-Z_]\w*)\s*[=!]", matchers)}
    return found


def grouping_labels(expression: str) -> set[str]:
    """Labels that results are grouped or joined by."""
    lists = (labels for _, labels in _GROUPING.findall(expression))
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}
