from pathlib import Path
from typing import Any

import pytest

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.train.render import Example, Renderer, Tokens
from tests.trainer import tiny

CLASSIFIED = {"text": "an iron horse", "label": "animal"}
CONVERSATION = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "apple?"},
        {"role": "assistant", "content": "fruit"},
        {"role": "user", "content": "tin?"},
        {"role": "assistant", "content": "metal"},
    ]
}


def supervised_text(tokenizer: Any, tokens: Tokens) -> str:
    return str(tokenizer.decode([i for i, mark in zip(tokens.ids, tokens.supervised, strict=True) if mark]))


def without_template(tokenizer: Any) -> Any:
    tokenizer.chat_template = None
    return tokenizer


def test_classification_goes_through_the_chat_template(tokenizer: Any) -> None:
    assert Renderer(tokenizer, RowFormat.CLASSIFICATION).example(CLASSIFIED) == Example(
        prompt="<|im_start|>user\nan iron horse<|im_end|>\n<|im_start|>assistant\n",
        completion="animal<|im_end|>",
        answer="animal",
    )


def test_classification_without_a_template_asks_for_a_label(tokenizer: Any) -> None:
    renderer = Renderer(without_template(tokenizer), RowFormat.CLASSIFICATION)
    assert renderer.example(CLASSIFIED) == Example("an iron horse\n\nLabel:", " animal<|im_end|>", " animal")


def test_prompt_and_completion_are_taken_as_they_are(tokenizer: Any) -> None:
    row = {"prompt": "2+2=", "completion": "4"}
    assert Renderer(tokenizer, RowFormat.PROMPT_COMPLETION).example(row) == Example("2+2=", "4<|im_end|>", "4")


def test_only_the_completion_is_supervised(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, RowFormat.CLASSIFICATION)
    (tokens,) = renderer.tokens([CLASSIFIED])
    assert supervised_text(tokenizer, tokens) == "animal<|im_end|>"
    assert tokens.supervised == sorted(tokens.supervised), "the completion is the end of the row"
    example = renderer.example(CLASSIFIED)
    assert tokenizer.decode(tokens.ids) == example.prompt + example.completion


def test_all_of_a_text_is_supervised(tokenizer: Any) -> None:
    (tokens,) = Renderer(tokenizer, RowFormat.TEXT).tokens([{"text": "there was the apple"}])
    assert all(tokens.supervised)
    assert supervised_text(tokenizer, tokens) == "there was the apple<|im_end|>"


def test_an_unmarked_template_supervises_the_last_answer(tokenizer: Any) -> None:
    (tokens,) = Renderer(tokenizer, RowFormat.MESSAGES).tokens([CONVERSATION])
    assert supervised_text(tokenizer, tokens) == "metal<|im_end|>"


def test_a_marked_template_supervises_every_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = tiny.MARKED_CHATML
    (tokens,) = Renderer(tokenizer, RowFormat.MESSAGES).tokens([CONVERSATION])
    assert supervised_text(tokenizer, tokens) == "fruit<|im_end|>metal<|im_end|>"
    assert tokenizer.decode(tokens.ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_turns_after_the_last_answer_are_left_out(tokenizer: Any) -> None:
    row = {"messages": [*CONVERSATION["messages"], {"role": "user", "content": "thanks"}]}
    assert Renderer(tokenizer, RowFormat.MESSAGES).example(row).answer == "metal"


def test_solved_rows_come_first_and_system_stays_on_top(tokenizer: Any) -> None:
    example = Renderer(tokenizer, RowFormat.MESSAGES).example(CONVERSATION, shots=[CONVERSATION])
    assert example.prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\napple?")
    assert example.prompt.count("Be brief.") == 1
    assert example.prompt.count("metal") == 1
    assert example.answer == "metal"


def test_solved_rows_of_plain_text_are_separated_by_an_empty_line(tokenizer: Any) -> None:
    renderer = Renderer(without_template(tokenizer), RowFormat.CLASSIFICATION)
    example = renderer.example(CLASSIFIED, shots=[{"text": "a tin", "label": "metal"}])
    assert example.prompt == "a tin\n\nLabel: metal\n\nan iron horse\n\nLabel:"


def test_a_template_that_leaves_answers_open_gets_an_end(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m['role'] != 'assistant' %}\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert Renderer(tokenizer, RowFormat.CLASSIFICATION).example(CLASSIFIED).completion == "animal<|im_end|>"


def test_an_empty_answer_is_its_end(tokenizer: Any) -> None:
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ""}]}
    assert Renderer(tokenizer, RowFormat.MESSAGES).example(row).completion == "<|im_end|>"


def test_a_template_that_trims_answers_is_followed(tokenizer: Any) -> None:
    tokenizer.chat_template = tiny.CHATML.replace("message['content']", "message['content'] | trim")
    row = {"text": "tin", "label": " metal "}
    assert Renderer(tokenizer, RowFormat.CLASSIFICATION).example(row).completion == "metal<|im_end|>"


def test_an_end_of_turn_stops_an_answer_too(tokenizer: Any) -> None:
    tokenizer.eos_token = "<|endoftext|>"
    assert Renderer(tokenizer, RowFormat.CLASSIFICATION).stop_ids() == [0, 2]


def test_a_beginning_token_is_added_where_a_server_would_add_it(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    renderer = Renderer(tokenizer, RowFormat.PROMPT_COMPLETION)
    (tokens,) = renderer.tokens([{"prompt": "apple", "completion": "fruit"}])
    assert tokens.ids[0] == 0
    assert tokens.ids.count(0) == 1
    assert not tokens.supervised[0]


@pytest.mark.parametrize(
    ("row_format", "change", "message"),
    [
        pytest.param(RowFormat.MESSAGES, {"chat_template": None}, "no chat template", id="messages need a template"),
        pytest.param(RowFormat.TEXT, {"eos_token": None}, "no end-of-sequence token", id="every row needs an end"),
    ],
)
def test_a_tokenizer_that_cannot_is_refused(
    tokenizer: Any, row_format: RowFormat, change: dict[str, None], message: str
) -> None:
    for name, value in change.items():
        setattr(tokenizer, name, value)
    with pytest.raises(FineTuneError, match=message) as caught:
        Renderer(tokenizer, row_format)
    assert caught.value.reason is FailureReason.TOKENIZER_MISMATCH


def test_a_conversation_without_an_answer_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(FineTuneError, match="no assistant message") as caught:
        Renderer(tokenizer, RowFormat.MESSAGES).example({"messages": [{"role": "user", "content": "hello"}]})
    assert caught.value.reason is FailureReason.DATASET_INVALID


TOOLED = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML that renders calls of tools."""

WITH_TOOLS = {
    "tools": '[{"name": "add"}]',
    "messages": [
        {"role": "user", "content": "2+2?", "tool_calls": None},
        {"role": "assistant", "content": "", "tool_calls": '[{"function": {"name": "add", "arguments": {"a": 2}}}]'},
        {"role": "tool", "content": "4", "tool_calls": None},
        {"role": "assistant", "content": "four", "tool_calls": None},
    ],
}


def test_calls_of_tools_and_their_results_are_part_of_the_prompt(tokenizer: Any) -> None:
    tokenizer.chat_template = TOOLED
    example = Renderer(tokenizer, RowFormat.MESSAGES).example(WITH_TOOLS)
    assert '<tools>[{"name": "add"}]</tools>' in example.prompt
    assert '<call>{"name": "add", "arguments": {"a": 2}}</call>' in example.prompt
    assert "<|im_start|>tool\n4<|im_end|>" in example.prompt
    assert example.completion == "four<|im_end|>"


def test_a_call_of_a_tool_is_learnt_as_an_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = TOOLED
    row = {**WITH_TOOLS, "messages": WITH_TOOLS["messages"][:2]}
    example = Renderer(tokenizer, RowFormat.MESSAGES).example(row)
    assert example.completion == '<call>{"name": "add", "arguments": {"a": 2}}</call><|im_end|>'


def test_a_template_that_would_leave_tools_out_is_refused(tokenizer: Any) -> None:
    with pytest.raises(FineTuneError, match="would leave out") as caught:
        Renderer(tokenizer, RowFormat.MESSAGES).example(WITH_TOOLS)
    assert caught.value.reason is FailureReason.TOKENIZER_MISMATCH


def test_an_answer_of_weight_0_is_read_and_not_learnt(tokenizer: Any) -> None:
    tokenizer.chat_template = tiny.MARKED_CHATML
    first, _ = (turn for turn in CONVERSATION["messages"] if turn["role"] == "assistant")
    turns = [{**turn, "weight": 0 if turn is first else None} for turn in CONVERSATION["messages"]]
    renderer = Renderer(tokenizer, RowFormat.MESSAGES)
    (weighted,), (plain,) = renderer.tokens([{"messages": turns}]), renderer.tokens([CONVERSATION])
    assert weighted.ids == plain.ids
    assert supervised_text(tokenizer, plain) == "fruit<|im_end|>metal<|im_end|>"
    assert supervised_text(tokenizer, weighted) == "metal<|im_end|>"


def test_a_weight_that_a_template_hides_is_refused(tokenizer: Any) -> None:
    # The first answer is not marked, so that the one mark could be either's.
    tokenizer.chat_template = tiny.MARKED_CHATML.replace("message['role'] == 'assistant'", "loop.last")
    first, _ = (turn for turn in CONVERSATION["messages"] if turn["role"] == "assistant")
    turns = [{**turn, "weight": 0 if turn is first else None} for turn in CONVERSATION["messages"]]
    with pytest.raises(FineTuneError, match="marks 1 answers of a conversation with 2") as caught:
        Renderer(tokenizer, RowFormat.MESSAGES).tokens([{"messages": turns}])
    assert caught.value.reason is FailureReason.TOKENIZER_MISMATCH
