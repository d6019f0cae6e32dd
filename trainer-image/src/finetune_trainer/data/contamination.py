"""Train rows that hold a piece of a held-out row: runs of words that both have.

Runs that occur in more than ten train rows are phrases of the language or of a template, and count for nothing; so do
Brown et al. 2020 (https://arxiv.org/abs/2005.14165, appendix C), from whom thirteen words, too, are.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from finetune_trainer.data.near import Array, runs_of_words

_COMMON = 10
"""Train rows from which on a run of words is nobody's own."""
_BLOCK = 1000


def contaminated(texts: Iterator[str], held_out: Iterator[str], ngram: int) -> tuple[list[int], list[int]]:
    """Places of train texts that share a run of words with a held-out text, and for each the held-out text's place.

    Args:
        texts: The train rows'.
        held_out: The others'.
        ngram: Words of a run.
    """
    runs, owners = _runs(held_out, ngram)
    if not runs.size:
        return [], []
    rows, shared = _shared(texts, runs, ngram)
    common = np.bincount(shared, minlength=len(runs)) > _COMMON
    own = ~common[shared]
    dirty, first = np.unique(rows[own], return_index=True)
    return dirty.tolist(), owners[shared[own][first]].tolist()


def _runs(texts: Iterator[str], ngram: int) -> tuple[Array, Array]:
    """The distinct runs of all texts, sorted, and the first text that has each."""
    hashes, owners, start = [np.array([], np.uint64)], [np.array([], np.int64)], 0
    for block in _blocks(texts):
        found, counts = runs_of_words(block, ngram, whole_if_short=False)
        hashes.append(found)
        owners.append(np.repeat(np.arange(start, start + len(block)), counts))
        start += len(block)
    distinct, first = np.unique(np.concatenate(hashes), return_index=True)
    return distinct, np.concatenate(owners)[first]


def _shared(texts: Iterator[str], runs: Array, ngram: int) -> tuple[Array, Array]:
    """Pairs of a text's place and the place of a run in `runs` that it has, each once."""
    rows, shared, start = [np.array([], np.int64)], [np.array([], np.int64)], 0
    for block in _blocks(texts):
        found, counts = runs_of_words(block, ngram, whole_if_short=False)
        places = np.searchsorted(runs, found).clip(max=len(runs) - 1)
        is_shared = runs[places] == found
        own = np.repeat(np.arange(start, start + len(block)), counts)[is_shared]
        pairs = np.unique(np.stack([own, places[is_shared]]), axis=1)
        rows.append(pairs[0])
        shared.append(pairs[1])
        start += len(block)
    return np.concatenate(rows), np.concatenate(shared)


def _blocks(texts: Iterator[str]) -> Iterator[Sequence[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
