"""Words of messages."""


def count(number: int, noun: str) -> str:
    """`1 adapter`, `2 adapters`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
