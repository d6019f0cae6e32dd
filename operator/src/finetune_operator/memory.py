"""Memory that is not needed any more goes back to the system: glibc keeps what a burst has used, for another one.

Filling the caches and each list of Kopf's pass some hundred megabytes of JSON through the process.
"""

import ctypes
import gc
from collections.abc import Callable


def _trim_of_libc() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library, such as musl
        return lambda _pad: 0


_trim = _trim_of_libc()


def give_back() -> None:
    """Return what is free; takes some ten milliseconds."""
    _trim(0)


def settle() -> None:
    """What there is now stays for long: the collector need not look through hundreds of thousands of objects again."""
    gc.collect()
    gc.freeze()
    give_back()
