"""Requests in files: answers, lines that are no requests, limits, and the words of both."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from openai.types.chat import ChatCompletion
from openai.types.completion import Completion
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_contract.base import StoredReference
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_server.gate import BODY_LIMIT
from tests.trainer.batch.requests import chat, completion, content, files_of, plan_of, run, write
from tests.trainer.server.tiny import SENTENCES, Shop, greedy, quiet


def words(number: int) -> str:
    """A prompt of its own length for every number."""
    return " ".join(random.Random(number).choices(" ".join(SENTENCES).split(), k=1 + number % 17))


def test_answers_are_those_of_the_tuned_model_in_the_inputs_order(
    shop: Shop, adapter: StoredReference, tmp_path: Path
) -> None:
    lines = [(chat if number % 3 else completion)(number, words(number)) for number in range(41)]
    write(tmp_path / "source/a.jsonl", lines[:20])
    write(tmp_path / "source/b.jsonl", ["", *lines[20:]])
    result = run(shop, plan_of(shop, adapter), tmp_path / "source")
    output, errors = files_of(shop, result)
    assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines]
    assert errors == []
    tokenizer: Any = AutoTokenizer.from_pretrained(shop.base_path)
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(shop.base_path, dtype=torch.float32)
        tuned = PeftModel.from_pretrained(base, shop.store.path(adapter)).eval()
    for line, asked in zip(output, lines, strict=True):
        body = asked["body"]
        prompt = body.get("prompt") or tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, tokenize=False
        )
        assert content(line) == greedy(tuned, tokenizer, prompt, 6)[0]
    counts = result.counts
    assert (result.total_rows, counts.rows, counts.succeeded, counts.failed) == (41, 41, 41, 0)
    usage = [line["response"]["body"]["usage"] for line in output]
    assert counts.prompt_tokens == sum(each["prompt_tokens"] for each in usage) > 0
    assert counts.generated_tokens == sum(each["completion_tokens"] for each in usage) > 0
    assert result.device == "cpu"


def test_lines_are_what_openais_client_expects(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    write(tmp_path / "source/a.jsonl", [chat(0, logprobs=True, top_logprobs=2), completion(1, logprobs=1)])
    (one, other), _ = files_of(shop, run(shop, plan_of(shop, adapter), tmp_path / "source"))
    assert one.keys() == {"id", "custom_id", "response", "error"}
    assert one["response"].keys() == {"status_code", "request_id", "body"}
    assert (one["response"]["status_code"], one["error"]) == (200, None)
    answer = ChatCompletion.model_validate(one["response"]["body"], strict=True)
    assert answer.choices[0].logprobs is not None
    assert answer.model == "triage"
    Completion.model_validate(other["response"]["body"], strict=True)
    assert len({one["id"], other["id"], one["response"]["request_id"], other["response"]["request_id"]}) == 4


BAD: dict[str, tuple[dict[str, Any] | str | bytes, str, int | None]] = {
    "not JSON": ('{"custom_id": "x", ', "invalid_json_line", None),
    "not UTF-8": (b'{"custom_id": "\xff"}', "invalid_json_line", None),
    "a list": ("[1]", "invalid_json_line", None),
    "nested too deeply": ("[" * 100_000, "invalid_json_line", None),
    "too long": ('{"custom_id": "' + "x" * BODY_LIMIT + '"}', "line_too_long", None),
    "no id": ({**chat(7), "custom_id": ""}, "missing_required_parameter", None),
    "another method": ({**chat(7), "method": "GET"}, "invalid_method", None),
    "another url": ({**chat(7), "url": "/v1/embeddings"}, "invalid_url", None),
    "no body": ({**chat(7), "body": None}, "missing_required_parameter", None),
    "a field of no request": ({**chat(7), "customid": "x"}, "unknown_parameter", None),
    "an id again": (chat(0), "duplicate_custom_id", None),
    "another model": (chat(7, model="gpt-4o"), "model_not_found", 404),
    "an unknown field": (chat(7, temprature=1), "invalid_request_error", 400),
    "a negative temperature": (chat(7, temperature=-1), "invalid_request_error", 400),
    "a stream": (chat(7, stream=True), "invalid_request_error", 400),
    "several answers": (chat(7, n=2), "invalid_request_error", 400),
    "no messages": (chat(7, messages=[]), "invalid_request_error", 400),
    "over the context": (chat(7, "json " * 3000), "context_length_exceeded", 400),
    "too long an answer": (chat(7, max_tokens=4000), "context_length_exceeded", 400),
    "half a surrogate pair": (json.dumps(completion(7, "\ud800")), "invalid_request_error", 400),
    "an unknown token": (completion(7, prompt=[999_999]), "invalid_request_error", 400),
}


@pytest.mark.parametrize(("line", "code", "status"), BAD.values(), ids=BAD)
def test_a_bad_line_is_an_error_with_its_place_and_the_others_are_answered(
    shop: Shop, adapter: StoredReference, tmp_path: Path, line: Any, code: str, status: int | None
) -> None:
    write(tmp_path / "source/a.jsonl", [chat(0), "", line, chat(2)])
    result = run(shop, plan_of(shop, adapter, max_error_share=0.5), tmp_path / "source")
    output, (error,) = files_of(shop, result)
    assert [each["custom_id"] for each in output] == ["ask-0", "ask-2"]
    assert error["error"]["code"] == code
    assert error["error"]["message"].startswith("a.jsonl line 3: ")
    assert (error["response"] or {}).get("status_code") == status
    if error["response"]:
        assert error["response"]["body"]["error"]["message"] in error["error"]["message"]
    assert (result.counts.succeeded, result.counts.failed) == (2, 1)
    assert [(each.code, each.rows) for each in result.errors] == [(code, 1)]


def test_more_errors_than_allowed_fail_before_a_model_is_loaded(
    shop: Shop, adapter: StoredReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_batch.run.load", lambda _: pytest.fail("a model was loaded"))
    write(tmp_path / "source/a.jsonl", [chat(0), "nonsense", chat(0), chat(3)])
    with pytest.raises(FineTuneError) as caught:
        run(shop, plan_of(shop, adapter, max_error_share=0.4), tmp_path / "source")
    assert caught.value.reason is FailureReason.REQUESTS_FAILED
    assert str(caught.value).startswith(
        "maxErrorShare: 2 of 4 rows have no answer, and a share of 0.4 is allowed; a.jsonl"
    )
    assert "line 2: is not JSON" in str(caught.value)


def test_what_was_answered_before_too_many_failed_is_kept(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    lines = [chat(number, words(number), **({"n": 2} if number in (10, 11) else {})) for number in range(20)]
    write(tmp_path / "source/a.jsonl", lines)
    with pytest.raises(FineTuneError, match=r"2 of 20 rows have no answer.*line 11: n: this engine only supports 1"):
        run(shop, plan_of(shop, adapter, max_error_share=0.05), tmp_path / "source")
    result = run(shop, plan_of(shop, adapter, max_error_share=0.1), tmp_path / "source")
    assert (result.resumed_rows, result.counts.rows, result.counts.failed) == (16, 20, 2)


def test_greedy_and_seeded_by_default_and_a_requests_own_fields_come_first(
    shop: Shop, adapter: StoredReference, tmp_path: Path
) -> None:
    warm: dict[str, Any] = {"temperature": 1.5, "max_tokens": 12}
    lines = [chat(0), chat(1), chat(2, **warm), chat(3, **warm), chat(4, **warm, seed=7), chat(5, **warm, seed=7)]
    write(tmp_path / "source/a.jsonl", lines)
    plan = plan_of(shop, adapter)
    first, _ = files_of(shop, run(shop, plan, tmp_path / "source"))
    said = [content(line) for line in first]
    assert said[0] == said[1]
    assert said[2] != said[3]
    assert said[4] == said[5]
    other = plan.model_copy(update={"key": "other", "shard_rows": 3})
    assert [content(line) for line in files_of(shop, run(shop, other, tmp_path / "source"))[0]] == said
    reseeded = plan_of(shop, adapter, key="reseeded", sampling={"seed": 1, "max_tokens": 2})
    output, _ = files_of(shop, run(shop, reseeded, tmp_path / "source"))
    assert content(output[2]) != said[2]
    del lines[0]["body"]["max_tokens"]
    write(tmp_path / "source/a.jsonl", lines[:1])
    ((line,), _) = files_of(shop, run(shop, reseeded, tmp_path / "source"))
    assert line["response"]["body"]["usage"]["completion_tokens"] == 2
    assert line["response"]["body"]["choices"][0]["finish_reason"] == "length"


def test_without_an_adapter_the_base_answers(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    write(tmp_path / "source/a.jsonl", [completion(0)])
    tuned, _ = files_of(shop, run(shop, plan_of(shop, adapter), tmp_path / "source"))
    plain, _ = files_of(shop, run(shop, plan_of(shop, None, key="base"), tmp_path / "source"))
    assert content(tuned[0]) != content(plain[0])


def test_a_file_without_a_request_is_refused(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    write(tmp_path / "source/a.jsonl", ["", "  "])
    with pytest.raises(FineTuneError, match=r"spec\.input\.jsonl: a\.jsonl: holds no request"):
        run(shop, plan_of(shop, adapter), tmp_path / "source")


def test_a_pattern_without_files_names_the_field(shop: Shop, adapter: StoredReference, tmp_path: Path) -> None:
    write(tmp_path / "source/a.txt", [chat(0)])
    with pytest.raises(FineTuneError, match=r"spec\.input\.jsonl: no file matches"):
        run(shop, plan_of(shop, adapter), tmp_path / "source")
