"""Where base models come from: one module per source, all behind `Source`.

A source first says what is there (`listing`), then fetches it. Network libraries are imported inside the source that
needs them.
"""

from finetune_store.sources.base import Listing, Source

__all__ = ["Listing", "Source"]
