"""Personal data: what is found, what is not, and that nothing of it is ever written down."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.cleaning import CleaningPlan, PersonalDataKind, PersonalDataPolicy
from finetune_contract.datasets import DatasetResult
from finetune_contract.failure import FailureReason
from finetune_trainer.data.personal import Recogniser
from tests.unit.data.conftest import Pod, jsonl, make_text

FOUND = [
    ("write to jane.doe+x@mail.example.co.uk.", "write to [EMAIL]."),
    ("call +49 30 901820 or 0044 20 7946 0958 now", "call [PHONE] or [PHONE] now"),
    ("IBAN DE89 3704 0044 0532 0130 00 OK", "IBAN [IBAN] OK"),
    ("GB82WEST12345698765432", "[IBAN]"),
    ("card 4111 1111 1111 1111, please", "card [CREDIT_CARD], please"),
    ("amex 378282246310005", "amex [CREDIT_CARD]"),
    ("from 8.8.8.8 and 2001:4860:4860::8888", "from [IP_ADDRESS] and [IP_ADDRESS]"),
    ("SSN 536-90-4399", "SSN [NATIONAL_ID]"),
    ("codice fiscale RSSMRA85T10A562S", "codice fiscale [NATIONAL_ID]"),
    ("DNI 12345678Z", "DNI [NATIONAL_ID]"),
    ("CPF 111.444.777-35", "CPF [NATIONAL_ID]"),
    ("key AKIAIOSFODNN7EXAMPLE", "key [SECRET]"),
    ("hf_" + "aB3" * 12, "[SECRET]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[SECRET]"),
]
NOT_FOUND = [
    "order 12345678901234 of 2024-01-02 10:30:00",
    "card 4111 1111 1111 1112 has a wrong check digit",
    "DE89 3704 0044 0532 0130 01 has one, too",
    "version 1.2.3.4.5, v1.2.3.4, host 10.0.0.1 and 127.0.0.1",
    "pi is 3.14159265358979, a hash 5f2a9c1b8e7d6f4a3b2c1d0e9f8a7b6c",
    "@someone mentioned sk-learn and task-force",
    "12345678A is no DNI, 000-12-3456 no SSN",
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_what_is_found(text: str, expected: str) -> None:
    redacted, _ = Recogniser().redacted(text)
    assert redacted == expected
    assert not Recogniser().spans(redacted)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_is_not(text: str) -> None:
    assert not Recogniser().spans(text)


def test_national_numbers_are_of_a_region() -> None:
    text = "call 030 901820 on 2024-01-02"
    assert not Recogniser().spans(text)
    assert Recogniser(["DE"]).redacted(text)[0] == "call [PHONE] on 2024-01-02"


@given(st.lists(st.sampled_from([text for text, _ in FOUND] + NOT_FOUND + ["and", "\n", "."]), max_size=6))
def test_spans_are_in_order_and_apart(parts: list[str]) -> None:
    text = " ".join(parts)
    spans = Recogniser(["US"]).spans(text)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert all(left.end <= right.start for left, right in pairwise(spans))


# --- policies ---

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"I am {name}@example.com {make_text(3)}"},
            {"role": "assistant", "content": "Hello"},
        ]
    }
    for name in ("jane", "joe")
] + [{"messages": [{"role": "user", "content": make_text(5)}, {"role": "assistant", "content": "Hello"}]}]


def prepared(pod: Pod, policy: PersonalDataPolicy) -> DatasetResult:
    pod.write("tickets.jsonl", jsonl(ROWS))
    return pod.prepare(cleaning=CleaningPlan(personal_data=policy))


def test_reported(pod: Pod) -> None:
    result = prepared(pod, PersonalDataPolicy.REPORT)
    assert [(found.kind, found.rows, found.count) for found in result.personal_data] == [(PersonalDataKind.EMAIL, 2, 2)]
    assert result.rows_kept == 3
    assert "jane@" in str(pod.rows(result))


def test_redacted(pod: Pod) -> None:
    result = prepared(pod, PersonalDataPolicy.REDACT)
    # Without their addresses the two rows are one.
    assert result.rows_kept == 2
    assert "@" not in str(pod.rows(result))
    assert "I am [EMAIL] " in str(pod.rows(result))
    listed = [entry for entry in pod.dropped(result) if entry["action"] == "Changed"]
    assert [(entry["reason"], entry["line"], entry["detail"]) for entry in listed] == [
        ("PersonalDataRedacted", 1, "1 Email"),
        ("PersonalDataRedacted", 2, "1 Email"),
    ]


def test_dropped(pod: Pod) -> None:
    result = prepared(pod, PersonalDataPolicy.DROP_ROW)
    assert result.rows_kept == 1
    assert [(entry["reason"], entry["line"]) for entry in pod.dropped(result)] == [
        ("PersonalData", 1),
        ("PersonalData", 2),
    ]
    assert "example.com" not in str(pod.dropped(result))


def test_refused(pod: Pod) -> None:
    said = "spec.prepare.personalData: Fail, and there is 2 Email; the first is in tickets.jsonl line 1: 1 Email"
    pod.fails(prepared(pod, PersonalDataPolicy.FAIL), FailureReason.PERSONAL_DATA_FOUND, said)
