"""`python -m finetune_trainer prepare --plan plan.json`: one dataset revision, or one named failure.

Reads as the list of its steps. Nothing is in the store until the last one, so a failure leaves no revision and no
partial directory.
"""

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_contract.cleaning import ChangeReason, Found, PersonalDataPolicy
from finetune_contract.datasets import DatasetPlan, DatasetResult, MixedPart, RowFormat, Split
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.manifest import StoredKind
from finetune_contract.paths import PLAN_FILE, SCRATCH_MOUNT, SOURCE_MOUNT, STORE_MOUNT, TERMINATION_LOG
from finetune_store.edge import read_plan, run_command
from finetune_store.opening import open_store
from finetune_store.store import Store
from finetune_trainer.data.clean import Cleaned, clean, similarity_of
from finetune_trainer.data.inspect import Orders, inspected, listed
from finetune_trainer.data.instructions import INSTRUCTION_FILE, Instruction, Stripped
from finetune_trainer.data.intake import Intake, MixtureIntake
from finetune_trainer.data.mixture import Mixture
from finetune_trainer.data.pace import Pace
from finetune_trainer.data.personal import Findings
from finetune_trainer.data.provenance import Terms
from finetune_trainer.data.report import write_report
from finetune_trainer.data.revision import digest_of, write_revision
from finetune_trainer.data.rows import Account, Row
from finetune_trainer.data.shelf import Measures, Shelf
from finetune_trainer.data.sources import address_of, fetch
from finetune_trainer.data.split import TRAIN
from finetune_trainer.data.statistics import Statistics, split_statistics, truncation

log = logging.getLogger(__name__)

AnyIntake = Intake | MixtureIntake


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="finetune_trainer prepare", description="Make one dataset revision.")
    parser.add_argument("--plan", type=Path, default=PLAN_FILE)
    parser.add_argument("--store", type=Path, default=STORE_MOUNT, help="where the claim is mounted")
    parser.add_argument("--source", type=Path, default=SOURCE_MOUNT, help="where the user's volume is mounted")
    parser.add_argument("--scratch", type=Path, default=SCRATCH_MOUNT, help="for downloads")
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="where the result goes")
    options = parser.parse_args(arguments)

    def work() -> DatasetResult:
        plan = read_plan(options.plan, DatasetPlan)
        return prepare(plan, open_store(plan, options.store), options.source, options.scratch)

    return run_command(work, lambda failure: DatasetResult(failure=failure), options.termination_log)


@dataclass
class Intook:
    """What was found while rows were put on the shelf."""

    findings: Findings = field(default_factory=Counter)
    rows_with: Findings = field(default_factory=Counter)
    instruction: str = ""
    stripped: Stripped | None = None

    def personal_data(self) -> tuple[Found, ...]:
        """By kind, most rows first."""
        return tuple(
            Found(kind=kind, rows=rows, count=self.findings[kind]) for kind, rows in self.rows_with.most_common()
        )


def prepare(plan: DatasetPlan, store: Store, source_mount: Path, scratch: Path) -> DatasetResult:
    """Make a plan's revision.

    Raises:
        FineTuneError: DatasetInvalid, BadRow, PersonalDataFound or SourceUnavailable, naming file and line.
    """
    store.register(plan.namespace)
    account = Account()
    tokenizer = store.verify(plan.tokenizer) if plan.tokenizer else None
    intake, source_revision, terms, of_parts = _opened(plan, store, account, source_mount, scratch)
    with Shelf(scratch / "shelf") as shelf:
        found = _fill(shelf, plan, intake, account, tokenizer, scratch)
        log.info("read %d rows of %s, %d stay%s", account.read, intake.format, len(shelf), account.counted())
        shelf.sort()
        cleaned = clean(plan, shelf, account)
        statistics = _statistics(plan, intake.format, cleaned, shelf, account, found)
        lineage = _lineage(plan, intake.format, source_revision) | terms.lineage() | of_parts
        started = time.monotonic()
        with store.workspace(StoredKind.DATASET) as work:
            write_revision(work, cleaned.parts, account)
            if found.stripped:
                (work / INSTRUCTION_FILE).write_text(found.stripped.to_json(), encoding="utf-8")
            revision = store.publish(StoredKind.DATASET, work, lineage, statistics.digest)
        with store.workspace(StoredKind.REPORT) as work:
            write_report(work, statistics, cleaned.parts, account, tokenizer, lineage)
            report = store.publish(StoredKind.REPORT, work, lineage | {"dataset": revision.digest})
        log.info("wrote them in %.1f s", time.monotonic() - started)
    log.info("revision %s: %s", revision.digest, {name: split.rows for name, split in statistics.splits.items()})
    return DatasetResult(
        revision=revision,
        report=report,
        format=intake.format,
        rows_read=account.read,
        rows_kept=statistics.rows_kept,
        dropped=statistics.dropped,
        changed=statistics.changed,
        personal_data=statistics.personal_data,
        truncation=statistics.truncation,
        splits=tuple(
            Split(name=name, rows=split.rows, fraction=cleaned.fractions.get(name), tokens=split.tokens)
            for name, split in statistics.splits.items()
        ),
        source_revision=source_revision,
        license=terms.shown_license(),
        attribution=terms.shown_attribution(),
        teachers=terms.shown_teachers(),
        parts=tuple(MixedPart(dataset=part.name, digest=part.revision.digest) for part in plan.source.mixture or ()),
    )


def _opened(
    plan: DatasetPlan, store: Store, account: Account, source_mount: Path, scratch: Path
) -> tuple[AnyIntake, str | None, Terms, dict[str, str]]:
    """The rows, what the source's content is called, their terms, and what is said of a mixture's parts."""
    own = Terms.said(plan.license, plan.attribution, [plan.teacher])
    if plan.source.mixture is not None:
        mixture = Mixture(plan.source.mixture, plan.split.seed, store)
        return MixtureIntake(mixture, account), None, *mixture.terms(own)
    files, revision = fetch(plan.source, source_mount, scratch)
    return Intake(plan, files, account), revision, own, {}


def _fill(
    shelf: Shelf,
    plan: DatasetPlan,
    intake: AnyIntake,
    account: Account,
    tokenizer: Path | None,
    scratch: Path,
) -> Intook:
    """Inspect every row, and put those that stay on the shelf."""
    if not plan.cleaning.strip_instructions:
        return _inspect(
            shelf, plan, intake, account, Orders(plan.cleaning, intake.format, similarity_of(plan), tokenizer)
        )
    instruction = Instruction()
    with Shelf(scratch / "raw") as raw:
        # Only the last row says what all of them have in common, so they are read twice.
        for row in intake:
            instruction.see(row)
            raw.put([row], [Measures()], None)
        instruction.settle()
        raw.sort()
        orders = Orders(plan.cleaning, intake.format, similarity_of(plan), tokenizer, instruction)
        found = _inspect(shelf, plan, raw.rows(range(len(raw))), account, orders)
    account.changed[ChangeReason.INSTRUCTION_STRIPPED] = len(shelf)
    found.instruction, found.stripped = instruction.text(), instruction.record()
    return found


def _inspect(shelf: Shelf, plan: DatasetPlan, rows: Iterable[Row], account: Account, orders: Orders) -> Intook:
    found, first, pace = Intook(), "", Pace("inspected")
    for block in inspected(rows, orders):
        shelf.put(block.rows, block.measures, block.bands)
        for drop in block.drops:
            account.drop(drop.origin, drop.reason, drop.detail)
        for change in block.changes:
            account.change(change)
        found.findings.update(block.findings)
        found.rows_with.update(block.rows_with)
        first = first or block.first_found
        pace.add(len(block.rows) + len(block.drops))
    log.info("%s", pace)
    if found.findings and plan.cleaning.personal_data is PersonalDataPolicy.FAIL:
        raise FineTuneError(
            FailureReason.PERSONAL_DATA_FOUND,
            f"spec.prepare.personalData: Fail, and there is {listed(found.findings)}; the first is in {first}",
        )
    return found


def _statistics(
    plan: DatasetPlan, row_format: RowFormat, cleaned: Cleaned, shelf: Shelf, account: Account, found: Intook
) -> Statistics:
    train = cleaned.parts[TRAIN].numbers
    lengths = shelf.measure("tokens")[train]
    split_long = row_format is RowFormat.TEXT
    cut = truncation(lengths, shelf.measure("first")[train], split_long=split_long) if plan.tokenizer else ()
    splits = {
        name: split_statistics(shelf, part.numbers, with_tokens=plan.tokenizer is not None)
        for name, part in cleaned.parts.items()
    }
    return Statistics(
        name=f"{plan.namespace}/{plan.name}",
        digest=digest_of(row_format, {name: part.digests() for name, part in cleaned.parts.items()}),
        format=row_format,
        rows_read=account.read,
        rows_kept=sum(split.rows for split in splits.values()),
        dropped=account.by_reason(),
        changed=account.changed_by_reason(),
        personal_data=found.personal_data(),
        tokenizer=plan.tokenizer.digest if plan.tokenizer else None,
        splits=splits,
        truncation=cut,
        instruction=found.instruction,
    )


def _lineage(plan: DatasetPlan, row_format: RowFormat, revision: str | None) -> dict[str, str]:
    """Where the rows come from."""
    facts = {
        "name": f"{plan.namespace}/{plan.name}",
        "format": row_format.value,
        "source": address_of(plan.source),
        "sourceRevision": revision,
    }
    return {name: value for name, value in facts.items() if value}
