"""`make bench-dataset`: rows per second and memory of a dataset pod, beside text-dedup on the same rows.

Rows of about 1 KB, a tenth of them planted near-duplicates of others at Jaccard similarities from 0.6 to 0.97. Ours is
the whole command, from JSON lines to a published revision with its report, as `python -m finetune_trainer prepare`; the
peer's is `python -m text_dedup.minhash` with the same shingles, hashes and bands. Memory is the largest sum of the
processes' proportional set sizes. ROWS="100000 300000" chooses sizes; the peer gets the smallest.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from finetune_contract.cleaning import CleaningPlan, PersonalDataPolicy
from finetune_contract.datasets import DatasetPlan, DatasetResult, DatasetSource
from finetune_trainer.data import near
from tools.bench.figures import FOLDER, Row, report
from tools.console import StepError, exit_on_failure, say
from tools.paths import cache
from tools.toolchain import new_virtual_environment

SIMILARITY = 0.85
WORDS = 160
"""Of about 5.4 letters and a space: 1 KB."""
PLANTED = 10
"""One row in so many is a near-duplicate of the one before it."""
PEER = "text-dedup==0.4.0"


class Corpus(NamedTuple):
    """Rows, and what is known of them."""

    file: Path
    pairs: list[tuple[int, int]]
    """Lines that are planted near-duplicates with an exact similarity of at least SIMILARITY."""
    others: int
    """Planted pairs below it."""


class Run(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_seconds: float
    """Of all processes: on a shared machine only these compare."""
    peak_mb: float
    log: str


def make_corpus(file: Path, rows: int) -> Corpus:
    """Random words; exact Jaccard decides which of the planted pairs have to be found."""
    chance = random.Random(rows)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(chance.choices(letters, k=chance.randint(3, 8))) for _ in range(30_000)]
    pairs, others = [], 0
    words: list[str] = []
    with file.open("w") as stream:
        for line in range(1, rows + 1):
            if line % PLANTED == 0:
                changed = mutated(words, vocabulary, chance)
                if similarity(words, changed) >= SIMILARITY:
                    pairs.append((line - 1, line))
                else:
                    others += 1
                words = changed
            else:
                words = chance.choices(vocabulary, k=WORDS)
            stream.write(json.dumps({"text": " ".join(words)}) + "\n")
    return Corpus(file, pairs, others)


def mutated(words: list[str], vocabulary: list[str], chance: random.Random) -> list[str]:
    """The words with one to eight replaced, each of which takes up to five shingles with it; never an exact copy."""
    changed = list(words)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] = chance.choice(vocabulary)
    return changed


def similarity(left: list[str], right: list[str]) -> float:
    """Exact Jaccard similarity of five-word shingles, without hashes."""
    sets = [{tuple(words[at : at + 5]) for at in range(len(words) - 4)} for words in (left, right)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def measured(argv: list[str], log: Path, env: dict[str, str] | None = None) -> Run:
    """Run a command and watch the memory of it and its children."""
    started, before, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN), 0.0
    with log.open("w") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_mb, family(process.pid))))
            time.sleep(0.25)
    seconds = time.monotonic() - started
    text = log.read_text(errors="replace")
    if process.returncode:
        raise StepError(f"{' '.join(argv[:4])} ended with {process.returncode}: {text[-800:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, peak, text)


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def proportional_mb(pid: int) -> float:
    """Memory of a process, what it shares counted in parts."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def ours(
    corpus: Corpus, directory: Path, processes: int | None = None
) -> tuple[Run, DatasetResult, list[dict[str, str]]]:
    """The command of a dataset pod; answers the result and what it left out."""
    import pyarrow

    root = Path(tempfile.mkdtemp(dir=directory))
    for name in ("store", "source", "scratch"):
        (root / name).mkdir()
    (root / "source/rows.jsonl").symlink_to(corpus.file)
    plan = DatasetPlan(
        name="bench", namespace="bench", source=DatasetSource(files="rows.jsonl"), claim="bench",
        near_duplicate_similarity=SIMILARITY, cleaning=CleaningPlan(personal_data=PersonalDataPolicy.REPORT),
    )  # fmt: skip
    # A link out of the volume is refused, so the file itself has to be there.
    (root / "source/rows.jsonl").unlink()
    os.link(corpus.file, root / "source/rows.jsonl")
    (root / "plan.json").write_text(plan.to_json())
    names = {
        "plan": "plan.json",
        "store": "store",
        "source": "source",
        "scratch": "scratch",
        "termination-log": "result",
    }
    argv = [
        sys.executable,
        "-m",
        "finetune_trainer",
        "prepare",
        *(f"--{key}={root / name}" for key, name in names.items()),
    ]
    if processes is not None:
        argv = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:processes])), *argv]
    run = measured(argv, root / "log")
    result = DatasetResult.model_validate_json((root / "result").read_text())
    (dropped,) = (root / "store/reports").glob("*/dropped.jsonl.zst")
    text = pyarrow.CompressedInputStream(str(dropped), "zstd").read().decode()
    return run, result, [json.loads(line) for line in text.splitlines()]


def quality(corpus: Corpus, dropped: list[dict[str, str]]) -> tuple[float, float]:
    """Recall over the planted pairs, and the share of dropped rows that exact Jaccard confirms."""
    matches = {int(entry["line"]): int(entry["detail"].rpartition(" ")[2]) for entry in dropped}
    recall = sum(one in matches or other in matches for one, other in corpus.pairs) / len(corpus.pairs)
    sample = dict(list(matches.items())[:2000])
    wanted = {*sample, *sample.values()}
    with corpus.file.open() as stream:
        texts = {line: near.words(json.loads(row)["text"]) for line, row in enumerate(stream, 1) if line in wanted}
    right = sum(similarity(texts[line], texts[match]) >= SIMILARITY for line, match in sample.items())
    return recall, right / max(1, len(sample))


def peer(corpus: Corpus, directory: Path) -> tuple[Run, float]:
    """text-dedup on the same rows with the same bands; answers its recall, too."""
    environment = cache() / "python" / PEER.replace("==", "-")
    new_virtual_environment(environment, PEER)
    bands = near.banding(SIMILARITY)
    output = directory / "peer"
    argv = [
        str(environment / "bin/python"), "-m", "text_dedup.minhash", "--path", "json",
        "--data_files", str(corpus.file), "--split", "train", "--cache_dir", str(directory / "peer-cache"),
        "--output", str(output), "--column", "text", "--batch_size", "10000", "--num_perm", str(near.PERMUTATIONS),
        "--threshold", str(SIMILARITY), "--ngram", "5", "--b", str(bands.bands), "--r", str(bands.rows),
        "--num_proc", str(len(os.sched_getaffinity(0))),
    ]  # fmt: skip
    run = measured(argv, directory / "peer.log", {"HF_HOME": str(directory / "hf"), "HF_HUB_OFFLINE": "1"})
    reader = "import json,sys,datasets; [print(json.dumps(t)) for t in datasets.load_from_disk(sys.argv[1])['text']]"
    kept_file = directory / "peer-kept"
    with kept_file.open("w") as stream:
        subprocess.run([str(environment / "bin/python"), "-c", reader, str(output)], stdout=stream, check=True)
    kept = {hash(json.loads(line)) for line in kept_file.open()}
    with corpus.file.open() as stream:
        is_kept = [False, *(hash(json.loads(row)["text"]) in kept for row in stream)]
    found = sum(not (is_kept[one] and is_kept[other]) for one, other in corpus.pairs)
    return run, found / len(corpus.pairs)


def stage_rows(log: str) -> list[Row]:
    """What the command's log says of its steps."""
    inspected = re.findall(r"inspected ([\d,]+) rows, ([\d,]+) a second", log)
    rows = [Row("inspect_rows_per_s", float(inspected[-1][1].replace(",", "")), "rows/s")] if inspected else []
    for name, words in (("compare_s", "compared"), ("write_s", "wrote")):
        if found := re.search(rf"{words} them in ([\d.]+) s", log):
            rows.append(Row(name, float(found[1]), "s"))
    return rows


def beside_peer(corpus: Corpus, directory: Path, size: int, run: Run, result: DatasetResult) -> list[Row]:
    """What one processor makes of the rows, and what the peer does."""
    _, alone, _ = ours(corpus, directory, processes=1)
    rows = [Row("digest_equal_with_one_process", float(alone.revision == result.revision), "")]
    try:
        its, its_recall = peer(corpus, directory)
    except (StepError, OSError, subprocess.SubprocessError) as error:
        say(f"  the peer could not be measured: {error}")
        return rows
    say(f"  {PEER}: {size / its.seconds:,.0f} rows/s, peak {its.peak_mb:,.0f} MB")
    return [
        *rows,
        Row("peer_rows_per_s", round(size / its.seconds), "rows/s"),
        Row("peer_near_recall", round(its_recall, 4), ""),
        Row("peer_peak_mb", round(its.peak_mb), "MB"),
        Row("peer_cpu_us_per_row", round(its.cpu_seconds / size * 1e6), "us"),
        Row("cpu_us_per_row_beside_peer", round(run.cpu_seconds / size * 1e6), "us"),
        Row("rows_per_s_beside_peer", round(size / run.seconds), "rows/s"),
    ]


def main() -> None:
    """Measure, print, write: after each size, so that what has been measured stays."""
    sizes = sorted(int(size) for size in os.environ.get("ROWS", "100000 300000 1000000").split())
    rows: list[Row] = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-dataset-") as scratch:
        directory = Path(scratch)
        for size in sizes:
            corpus = make_corpus(directory / "rows.jsonl", size)
            say(
                f"  {size:,} rows, {corpus.file.stat().st_size / size:.0f} bytes each, {len(corpus.pairs):,} near pairs"
            )
            run, result, dropped = ours(corpus, directory)
            if result.failure or result.revision is None:
                raise StepError(f"the dataset pod failed: {result.failure}")
            name = f"{size // 1000}k" if size < 10**6 else f"{size // 10**6}m"
            say(f"  {size / run.seconds:,.0f} rows/s, peak {run.peak_mb:,.0f} MB, {result.revision.digest[:19]}")
            rows += [
                Row(f"peak_mb_{name}", round(run.peak_mb), "MB"),
                Row(f"bytes_per_row_{name}", round(run.peak_mb * 2**20 / size), "B"),
                Row(f"seconds_{name}", round(run.seconds, 1), "s"),
            ]
            if size == sizes[0]:
                rows += beside_peer(corpus, directory, size, run, result)
            recall, precision = quality(corpus, dropped)
            largest = [
                Row("rows_per_s", round(size / run.seconds), "rows/s"),
                Row("cpu_us_per_row", round(run.cpu_seconds / size * 1e6), "us"),
                *stage_rows(run.log),
                Row("near_recall", round(recall, 4), ""),
                Row("near_precision", round(precision, 4), ""),
            ]
            report("dataset", [*rows, *largest])


if __name__ == "__main__":
    exit_on_failure(main)
