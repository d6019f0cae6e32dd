"""Personal data in text, found by patterns and check digits: no model, nothing downloaded.

    Email        something@domain.tld
    IBAN         python-stdnum: country, length, check digits
    CreditCard   a card network's prefix and length, Luhn
    NationalID   python-stdnum, for identifiers that check digits or their form tell from other numbers
    Phone        phonenumbers: a number that can exist, with its country code, or of one of the regions asked for
    IPAddress    addresses of the public internet
    Secret       keys and tokens in the forms that their issuers document, and private keys

The kinds are looked for in this order of trust, and what one has found no other takes for its own.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from finetune_contract.cleaning import PersonalDataKind as Kind

Findings = Counter[Kind]


class Span(NamedTuple):
    """A piece of text."""

    start: int
    end: int
    kind: Kind


_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[\s\S]{0,8000}?(?:-----END (?:[A-Z]+ )?PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{22,}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\b[sr]k_live_[A-Za-z0-9]{20,}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{35}|\bnpm_[A-Za-z0-9]{36}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # JSON web token
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\d.,])\d{4}(?:[ -]?\d){9,15}(?!\d|[.,]\d)")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]\d|\d)")
_DOTTED = re.compile(r"\.\d{1,3}\.")
"""What an IPv4 address has in its middle: found fast, since it begins with a fixed letter."""
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONE = re.compile(r"(?<![\w+])(?:\+|00)\d[\d ()./-]{6,18}\d(?!\w)")
_NATIONAL_PHONE = re.compile(r"(?<![\w+.,-])\(?\d[\d ()./-]{5,16}\d(?![\w-]|[.,]\d)")
_DIGITS = re.compile(r"\d(?:[ ()./+A-Z-]{0,3}\d){6}")
"""Seven digits that may belong together: no identifier here has fewer. Nearly all texts end at this question."""
_SECRET_MARKS = (
    "-----BEGIN", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "hf_", "sk-",
    "k_live_", "xox", "AIza", "npm_", "eyJ",
)  # fmt: skip
"""What every secret has in it; looking for a fixed word is a hundred times faster than the pattern."""
_DATE_LIKE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}")

_NATIONAL_IDS = (
    ("us.ssn", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")),
    ("gb.nhs", re.compile(r"(?<![\d-])\d{3} \d{3} \d{4}(?![\d-])")),
    ("it.codicefiscale", re.compile(r"\b[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]\b")),
    ("es.dni", re.compile(r"\b\d{8}-?[A-HJ-NP-TV-Z]\b")),
    ("es.nie", re.compile(r"\b[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]\b")),
    ("fr.nir", re.compile(r"(?<!\d)[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}(?!\d)")),
    ("be.nn", re.compile(r"(?<![\d.])\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}(?!\d)")),
    ("br.cpf", re.compile(r"(?<![\d.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)")),
    ("cn.ric", re.compile(r"(?<!\d)\d{17}[\dX](?!\w)")),
    ("se.personnummer", re.compile(r"(?<![\d-])(?:19|20)?\d{6}[-+]\d{4}(?![\d-])")),
    ("fi.hetu", re.compile(r"\b\d{6}[-+A]\d{3}[0-9A-Y]\b")),
    ("pl.pesel", re.compile(r"(?<=PESEL )\d{11}\b|(?<=PESEL: )\d{11}\b")),
)
"""Modules of python-stdnum, and the forms in which their numbers are told from others."""

_CARD_PREFIXES = re.compile(
    r"(?:4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17})"
)
"""Visa, Mastercard, American Express, Diners Club, Discover, JCB, UnionPay: issuers' ranges and lengths."""


class Recogniser:
    """Finds personal data in texts."""

    def __init__(self, regions: Sequence[str] = ()) -> None:
        """Take the countries whose telephone numbers are written without a country code."""
        self._regions = tuple(regions)
        self._numbers = (_secrets, _emails, _ibans, _cards, _national_ids, _ip_addresses, self._phones)

    def spans(self, text: str) -> list[Span]:
        """What was found, in order, without overlaps."""
        found: list[Span] = []
        for recognise in self._numbers if _DIGITS.search(text) else _OTHERS:
            for span in recognise(text):
                if not any(span.start < other.end and other.start < span.end for other in found):
                    found.append(span)
        return sorted(found)

    def redacted(self, text: str) -> tuple[str, Findings]:
        """The text with a placeholder such as `[EMAIL]` for each finding, and what was found."""
        spans = self.spans(text)
        if not spans:
            return text, Counter()
        pieces, end = [], 0
        for span in spans:
            pieces += [text[end : span.start], _PLACEHOLDERS[span.kind]]
            end = span.end
        return "".join(pieces) + text[end:], Counter(span.kind for span in spans)

    def redacted_value(self, value: Any) -> tuple[Any, Findings]:  # noqa: ANN401 - JSON
        """The same for every text of a row; a label is what the model has to say, and no text."""
        findings: Findings = Counter()
        if isinstance(value, str):
            return self.redacted(value)
        if isinstance(value, list):
            items = [self.redacted_value(item) for item in value]
            return [item for item, _ in items], sum((found for _, found in items), findings)
        if isinstance(value, dict):
            pairs = {
                key: (item, findings) if key in _NO_TEXT else self.redacted_value(item) for key, item in value.items()
            }
            return (
                {key: item for key, (item, _) in pairs.items()},
                sum((found for _, found in pairs.values()), Counter()),
            )
        return value, findings

    def _phones(self, text: str) -> Iterator[Span]:
        for match in _PHONE.finditer(text):
            if _is_phone(match[0], None):
                yield Span(match.start(), match.end(), Kind.PHONE)
        if self._regions:
            for match in _NATIONAL_PHONE.finditer(text):
                if not _DATE_LIKE.fullmatch(match[0].strip()) and any(_is_phone(match[0], at) for at in self._regions):
                    yield Span(match.start(), match.end(), Kind.PHONE)


_PLACEHOLDERS = {
    Kind.EMAIL: "[EMAIL]",
    Kind.PHONE: "[PHONE]",
    Kind.IBAN: "[IBAN]",
    Kind.CREDIT_CARD: "[CREDIT_CARD]",
    Kind.IP_ADDRESS: "[IP_ADDRESS]",
    Kind.NATIONAL_ID: "[NATIONAL_ID]",
    Kind.SECRET: "[SECRET]",
}

_NO_TEXT = ("label", "role")


def _secrets(text: str) -> Iterator[Span]:
    if any(mark in text for mark in _SECRET_MARKS):
        yield from (Span(match.start(), match.end(), Kind.SECRET) for match in _SECRET.finditer(text))


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from (Span(match.start(), match.end(), Kind.EMAIL) for match in _EMAIL.finditer(text))


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        # A word in capitals that follows looks like one more group.
        words = match[0].split(" ")
        for count in range(len(words), 0, -1):
            number = " ".join(words[:count])
            if _is_valid("iban", number):
                yield Span(match.start(), match.start() + len(number), Kind.IBAN)
                break


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _CARD_PREFIXES.fullmatch(digits) and _is_valid("luhn", digits):
            yield Span(match.start(), match.end(), Kind.CREDIT_CARD)


def _national_ids(text: str) -> Iterator[Span]:
    for module, pattern in _NATIONAL_IDS:
        for match in pattern.finditer(text):
            if _is_valid(module, match[0]):
                yield Span(match.start(), match.end(), Kind.NATIONAL_ID)


def _ip_addresses(text: str) -> Iterator[Span]:
    patterns = [_IPV4] if _DOTTED.search(text) else []
    if "::" in text or text.count(":") >= 7:
        patterns.append(_IPV6)
    for pattern in patterns:
        for match in pattern.finditer(text):
            if _is_public(match[0]):
                yield Span(match.start(), match.end(), Kind.IP_ADDRESS)


_OTHERS: tuple[Callable[[str], Iterator[Span]], ...] = (_secrets, _emails, _ip_addresses)
"""What is looked for where there is no long number."""


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _is_phone(text: str, region: str | None) -> bool:
    import phonenumbers

    try:
        number = phonenumbers.parse("+" + text[2:] if region is None and text.startswith("00") else text, region)
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_valid_number(number))


@cache
def _module(name: str) -> Any:  # noqa: ANN401 - stdnum has no types
    from importlib import import_module

    return import_module(f"stdnum.{name}")


def _is_valid(module: str, number: str) -> bool:
    return bool(_module(module).is_valid(number))
