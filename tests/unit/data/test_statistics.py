"""Statistics: what maxLength would cut is what the trainer cuts; and the report shows it all, and nothing personal."""

import json
import re
from html.parser import HTMLParser

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.cleaning import CleaningPlan, PersonalDataPolicy
from finetune_contract.datasets import DatasetResult, SplitPlan, Teacher
from finetune_trainer.data.statistics import histogram, truncation
from finetune_trainer.data.tokens import counts_of
from finetune_trainer.train.render import Tokens
from finetune_trainer.train.sequences import pieces_of
from tests.unit.data.conftest import Pod, jsonl, make_text, mix, part

ROWS = st.lists(
    st.builds(
        lambda prompt, answer: Tokens(list(range(prompt + answer)), [False] * prompt + [True] * answer),
        st.integers(0, 1500),
        st.integers(1, 1500),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60)
@given(ROWS)
def test_what_would_be_cut_is_what_the_trainer_cuts(rows: list[Tokens]) -> None:
    counts = [counts_of(tokens) for tokens in rows]
    lengths, first = np.array([count.tokens for count in counts]), np.array([count.first for count in counts])
    found = truncation(lengths, first, split_long=False)
    for cut in found:
        pieces = [piece for tokens in rows for piece in pieces_of(tokens, cut.max_length, split_long=False)]
        assert cut.tokens == lengths.sum() - sum(len(piece.ids) for piece in pieces)
        assert cut.rows == (lengths > cut.max_length).sum()
        assert 0 <= cut.padding_share < 1
    assert found[-1].rows == 0
    assert all(cut.tokens == 0 for cut in truncation(lengths, first, split_long=True))


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200))
def test_every_row_is_in_a_bin(lengths: list[int]) -> None:
    shape = histogram("tokens", np.array(lengths))
    assert sum(shape.rows) == len(lengths)
    assert shape.p50 <= shape.p95 <= shape.p99 <= shape.max == max(lengths)
    assert len(shape.rows) <= 25


class Page(HTMLParser):
    """Whether tags are closed as they were opened, and whether anything is loaded."""

    EMPTY = ("meta", "rect", "line", "path", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.loads: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "onload")]
        if tag in ("script", "link", "img", "iframe"):
            self.loads.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_shows_what_happened_and_nothing_personal(pod: Pod) -> None:
    rows = [
        {"text": f"{make_text(at)} jane{at}@example.com", "label": "<b>&" if at % 3 else "other"} for at in range(40)
    ]
    result = pod.prepare(
        jsonl([*rows, *rows[:5], {"text": " ", "label": "other"}]),
        split=SplitPlan(test=0.3, stratify_by="label"),
        cleaning=CleaningPlan(personal_data=PersonalDataPolicy.REPORT),
    )
    assert result.report is not None
    directory = pod.store.verify(result.report)
    page = Page((directory / "report.html").read_text())
    assert page.loads == []
    for said in ("team-a/tickets", "46", "ExactDuplicate", "Empty", "<b>&", "Email", "[EMAIL]", "to test"):
        assert said in page.text, said
    assert not re.search(r"jane\d", page.text)
    statistics = json.loads((directory / "statistics.json").read_text())
    assert (statistics["rowsRead"], statistics["rowsKept"]) == (46, 40)
    assert statistics["digest"] == result.revision.digest if result.revision else False
    assert (
        sum(label["rows"] for label in statistics["splits"]["train"]["labels"]) == statistics["splits"]["train"]["rows"]
    )


def test_the_report_says_whose_rows_they_are_and_which_labels_nobody_measures(pod: Pod) -> None:
    rows = [{"text": make_text(at), "label": "lonely" if at == 7 else "usual"} for at in range(30)]
    teacher = Teacher(model="org/large", terms="<terms>")
    split = SplitPlan(test=0.3, stratify_by="label")
    shown = report_of(pod, pod.prepare(jsonl(rows), split=split, attribution="Jane & Co", teacher=teacher))
    for said in ("inline", "not stated", "Jane & Co", "org/large (<terms>)", "in no held-out row: lonely."):
        assert said in shown, said
    first = part(pod, "a", rows[:10], license="MIT", teacher=teacher)
    second = part(pod, "b", rows[10:], license="CC-BY-NC-4.0")
    shown = report_of(pod, mix(pod, first, second))
    for said in ("a mixture", "CC-BY-NC-4.0", "MIT", "org/large (<terms>)", first.revision.digest[7:19]):
        assert said in shown, said


def test_a_turn_that_is_not_learnt_is_grey_without_a_tokenizer_too(pod: Pod) -> None:
    turns = [("user", "a"), ("assistant", "unlearnt", 0), ("user", "b"), ("assistant", "learnt")]
    row = {"messages": [dict(zip(("role", "content", "weight"), turn, strict=False)) for turn in turns]}
    result = pod.prepare(jsonl([row]))
    assert result.report is not None
    html = (pod.store.verify(result.report) / "report.html").read_text()
    assert re.findall(r"<span class='learnt'>(.*?)\s*</span>", html) == ["assistant: learnt"]


def report_of(pod: Pod, result: DatasetResult) -> str:
    assert result.report is not None
    return Page((pod.store.verify(result.report) / "report.html").read_text()).text


def test_a_reading_that_finds_the_same_rows_has_a_report_of_its_own(pod: Pod) -> None:
    rows = [{"text": make_text(at)} for at in range(5)]
    first, second = pod.prepare(jsonl(rows)), pod.prepare(jsonl([*rows, rows[0]]))
    assert first.revision == second.revision
    assert first.report != second.report
