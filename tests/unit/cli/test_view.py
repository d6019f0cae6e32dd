"""What people read of a job, from its raw dictionary."""

import math
from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from finetune_cli import page, view
from finetune_cli.facts import Object
from tests.unit.cli.jobs import ARTIFACT, NOW, condition, failed_job, make_job, new_job, progress, ready_job, score


def shown(renderable: RenderableType, width: int = 120, **options: object) -> str:
    console = Console(file=StringIO(), width=width, highlight=False, **options)  # type: ignore[arg-type]
    console.print(renderable)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (
            make_job(),
            "namer  Training  42%  step 126/300  loss 0.412  12,346 tokens/s  ETA 3m20s  attempt 1",
        ),
        (
            make_job(attemptsTotal=1, progress=progress(resumedFromStep=80, tokensPerSecond=None)),
            "namer  Training  42%  step 126/300  loss 0.412  ETA 3m20s  attempt 2 (resumed from step 80)",
        ),
        (ready_job(), "namer  Succeeded  100%  step 300/300  loss 0.412  12,346 tokens/s  attempt 1"),
        (new_job(), "namer  Pending  waiting for the operator to see it"),
        (
            make_job(
                phase="WaitingForDataset",
                progress=None,
                conditions=[condition("Ready", status=False, message="Dataset 'colours' does not exist")],
            ),
            "namer  WaitingForDataset  Dataset 'colours' does not exist",
        ),
        (
            make_job(progress=progress(loss=math.nan, tokensPerSecond=None)),
            "namer  Training  42%  step 126/300  ETA 3m20s  attempt 1",
        ),
        (
            make_job(progress=progress(estimatedCompletionTime="2026-01-01T11:59:59Z")),
            "namer  Training  42%  step 126/300  loss 0.412  12,346 tokens/s  attempt 1",
        ),
        (make_job(progress={"phase": "Loading"}, phase="Loading"), "namer  Loading  0%  attempt 1"),
        (
            make_job(
                phase="Starting",
                attemptsTotal=1,
                conditions=[condition("Ready", status=False, message="attempt 2: no node has a free GPU")],
            ),
            "namer  Starting  42%  step 126/300  attempt 2: no node has a free GPU",
        ),
        (failed_job(), "namer  Failed  42%  step 126/300  ValueError: no rows left"),
        (make_job(phase="\x1b[31mred", progress=None), "namer  ?[31mred  Training"),
        ({}, "Pending  waiting for the operator to see it"),
    ],
    ids=[
        "training",
        "resumed",
        "succeeded",
        "new",
        "waiting",
        "loss is NaN",
        "overdue",
        "loading",
        "next attempt waits",
        "failed",
        "terminal codes",
        "empty",
    ],
)
def test_progress_line(job: Object, line: str) -> None:
    assert view.progress_line(job, NOW) == line


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "█▇▆▅▄▃▂▁"),
        ([1.0] * 100 + [2.0] * 100, "▁▁▁▁█████"[0:4] + "████"),
    ],
    ids=["none", "one", "flat", "falling", "more than fit"],
)
def test_sparkline(losses: list[float], line: str) -> None:
    assert view.sparkline(losses, width=8) == line


def test_render_progress_fits_80_columns() -> None:
    lines = shown(view.render_progress(make_job(), [3, 2, 1], NOW), width=80).splitlines()
    assert lines[0].startswith("namer  Training  ━━━")
    assert lines[0].endswith("42%  step 126/300")
    assert lines[1] == "loss 0.412 █▅▁  12,346 tokens/s  ETA 3m20s  attempt 1"
    assert max(map(len, lines)) <= 80


def test_render_progress_of_a_job_that_waits() -> None:
    assert "waiting for the operator to see it" in shown(view.render_progress(new_job(), [], NOW))


class TestJobBar:
    def draw(self, *jobs: Object) -> str:
        bar = view.JobBar(jobs[0])
        for job in jobs[1:]:
            bar.update(job)
        return shown(bar).splitlines()[1]

    def at(self, step: int, loss: float | None, key: str = "key") -> Object:
        return make_job(progress=progress(step, loss), run={"key": key})

    def test_losses_become_a_sparkline(self) -> None:
        assert "loss 1 █▅▁" in self.draw(self.at(1, 3.0), self.at(2, 2.0), self.at(2, 2.0), self.at(3, 1.0))

    def test_steps_that_a_resumed_attempt_repeats_are_forgotten(self) -> None:
        assert "loss 2 █▁ " in self.draw(self.at(10, 3.0), self.at(20, 1.0), self.at(15, 2.0))

    def test_losses_stay_while_the_next_attempt_loads(self) -> None:
        assert "loss 1 █▁ " in self.draw(self.at(10, 3.0), self.at(0, None), self.at(20, 1.0))

    def test_another_run_starts_afresh(self) -> None:
        assert "loss 1 ▁ " in self.draw(self.at(1, 3.0), self.at(2, 1.0, key="another"))

    def test_a_loss_that_is_no_number_is_not_drawn(self) -> None:
        assert "loss" not in self.draw(self.at(1, math.inf), self.at(2, None))


def test_evaluation_table() -> None:
    assert shown(view.evaluation_table(ready_job())).splitlines() == [
        "SYSTEM     EvalLoss (95 % interval)   ExactMatch (95 % interval)   ROWS",
        "Tuned      0.500 [0.400, 0.600]       0.750 [0.600, 0.900]         24",
        "ZeroShot   2.250 [2.100, 2.400]       0.000                        24",
    ]


@pytest.mark.parametrize(
    ("metric", "leads", "winner"),
    [
        ("EvalLoss", [(-1.0, 0.01)], "0.500"),
        ("ExactMatch", [(0.4, 0.05), (0.3, 0.001)], "0.500"),
        ("ExactMatch", [(0.4, 0.01), (0.1, 0.2)], None),
        ("ExactMatch", [(0.4, 0.01), (-0.2, 0.01)], "0.701"),
        ("EvalLoss", [(0.2, 0.01)], "0.700"),
        ("ExactMatch", [(0.0, 1.0)], None),
        ("ExactMatch", [(0.4, None)], None),
        ("ExactMatch", [], None),
        ("NotYetKnown", [(1.0, 0.001)], None),
    ],
    ids=["lower loss", "than every baseline", "than one for sure", "one baseline", "a baseline's loss", "a tie",
         "no test was made", "alone", "unknown metric"],
)  # fmt: skip
def test_what_is_better_beyond_doubt_is_green(
    metric: str, leads: list[tuple[float, float | None]], winner: str | None
) -> None:
    baselines = [
        {**score(f"b{at}", metric, 0.7 + at / 1000), "difference": lead, "pValue": p_value}
        for at, (lead, p_value) in enumerate(leads)
    ]
    job = make_job(evaluation=[score("Tuned", metric, 0.5), *baselines])
    drawn = shown(view.evaluation_table(job), force_terminal=True, color_system="standard")
    assert drawn.count("\x1b[1;32m") == (1 if winner else 0)
    if winner:
        assert f"\x1b[1;32m{winner}" in drawn


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59.4, "59s"), (60, "1m"), (200, "3m20s"), (7500, "2h5m"), (356400, "4d3h"), (86401, "1d")],
)
def test_duration(seconds: float, words: str) -> None:
    assert view.duration(timedelta(seconds=seconds)) == words


def test_jobs_table() -> None:
    table = page.jobs_table([new_job("zebra"), failed_job(), make_job("aardvark")], NOW)
    assert shown(table).splitlines() == [
        "NAME       PHASE      PROGRESS   LOSS    ATTEMPT   REASON           AGE",
        "aardvark   Training   42%        0.412   1         Training         2h",
        "namer      Failed     42%        0.412   1         TrainerCrashed   2h",
        "zebra      Pending    -          -       -         -                -",
    ]


class TestJobPage:
    @pytest.mark.parametrize(
        "line",
        [
            "Job        team/namer",
            "Trains     LoRA rank 16 by SFT on dataset colours",
            "Run        1, started 30m ago, key key",
            "Progress   100%  step 300/300  loss 0.412  12,346 tokens/s  attempt 1",
            "  1   Succeeded   300    -              3m20s   gpu-1   -",
            "  Tuned      0.500 [0.400, 0.600]       0.750 [0.600, 0.900]         24",
            "  Type      Adapter, 155.6 KiB",
            "  Ready      True     Because   1h",
        ],
    )
    def test_ready(self, line: str) -> None:
        assert line in shown(page.job_page(ready_job(), NOW)).splitlines()

    def test_failed_shows_the_last_line_in_tables_and_all_of_it_below(self) -> None:
        drawn = shown(page.job_page(failed_job(), NOW))
        assert "  1   TrainerCrashed   0      -              7s     -      ValueError: no rows left" in drawn
        assert drawn.endswith('Why it failed\n    File "train.py", line 1\n  ValueError: no rows left')

    def test_a_message_is_written_once(self) -> None:
        lines = shown(page.job_page(failed_job(), NOW)).splitlines()
        assert "Because   ValueError: no rows left" in lines
        assert "  Stalled   True     TrainerCrashed   1h    as Ready" in lines

    def test_new_job_has_only_a_summary(self) -> None:
        assert shown(page.job_page(new_job(), NOW)).splitlines()[-1] == ("Because   waiting for the operator to see it")

    def test_status_of_an_older_spec_says_so(self) -> None:
        assert "(of the spec before an edit)" in shown(page.job_page(make_job(generation=2), NOW))

    def test_artifact_of_an_earlier_run_says_so(self) -> None:
        job = make_job(artifact={**ARTIFACT, "run": "older"})
        assert "key older: an earlier one" in shown(page.job_page(job, NOW))

    def test_markup_in_a_message_is_shown_as_it_is(self) -> None:
        job = make_job(conditions=[condition("Ready", message="[red]x[/red] [/nonsense]")])
        assert "[red]x[/red] [/nonsense]" in shown(page.job_page(job, NOW))


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        ({"gpuHours": 1.5, "lostGpuHours": 0.0}, "1.50 GPU-hours"),
        ({"gpuHours": 12.0, "lostGpuHours": 0.25}, "12.00 GPU-hours, 0.25 of them lost"),
        (
            {"gpuHours": 1234.0, "lostGpuHours": 1.0, "amount": 2468.0, "currency": "EUR"},
            "1,234.00 GPU-hours, 1.00 of them lost: 2,468.00 EUR",
        ),
    ],
    ids=["no price", "lost", "price"],
)
def test_the_cost_is_told(cost: Object, words: str) -> None:
    assert words in shown(page.job_page(ready_job(cost=cost), NOW))
