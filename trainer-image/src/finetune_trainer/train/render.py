r"""Rows as text: what the model reads and what it has to answer. Shared by training, evaluation and the probe.

Messages            chat template; every assistant turn of weight 1 where the template marks them, else the last one
Classification      chat template (user = text, assistant = label), or without one `{text}\n\nLabel:` -> ` {label}`
PromptCompletion    the strings as they are, then the end-of-sequence token
Text                the text as it is, then the end-of-sequence token
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from finetune_contract.datasets import RowFormat
from finetune_contract.failure import FailureReason, FineTuneError

Row = Mapping[str, Any]
Turn = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One row as text."""

    prompt: str
    """What the model reads; empty for Text."""
    completion: str
    """What it has to write, with the mark that ends its answer."""
    answer: str
    """The completion without that mark: what a reader compares."""


@dataclass(frozen=True)
class Tokens:
    """One row as token ids."""

    ids: list[int]
    supervised: list[bool]
    """Which ids the loss is on; as long as `ids`."""


class Renderer:
    """Renders the rows of one format for one tokenizer."""

    def __init__(self, tokenizer: Any, row_format: RowFormat) -> None:  # noqa: ANN401 - transformers has no types
        """Check that the tokenizer can do what the format needs.

        Raises:
            FineTuneError: TokenizerMismatch when it has no chat template for Messages, or no end-of-sequence token.
        """
        self.tokenizer = tokenizer
        self.row_format = row_format
        self.is_chat = bool(tokenizer.chat_template) and row_format in (RowFormat.MESSAGES, RowFormat.CLASSIFICATION)
        if row_format is RowFormat.MESSAGES and not self.is_chat:
            raise FineTuneError(
                FailureReason.TOKENIZER_MISMATCH,
                "the base model's tokenizer has no chat template, which Messages rows need; "
                "use an instruction-tuned base model, or PromptCompletion rows",
            )
        if tokenizer.eos_token is None:
            raise FineTuneError(
                FailureReason.TOKENIZER_MISMATCH,
                "the base model's tokenizer names no end-of-sequence token (eos_token in tokenizer_config.json)",
            )
        self.marks_assistant = (
            row_format is RowFormat.MESSAGES and self.is_chat and "{% generation %}" in tokenizer.chat_template
        )
        """Whether the template says which tokens are the assistant's, so that every turn of it is trained."""

    # --- text ---

    def example(self, row: Row, shots: Sequence[Row] = ()) -> Example:
        """A row as prompt and completion, after `shots` solved rows."""
        if not self.is_chat:
            prompt, answer = self._plain(row)
            solved = "".join("".join(self._plain(shot)) + "\n\n" for shot in shots)
            return Example(solved + prompt, answer + self.tokenizer.eos_token, answer)
        turns = self._turns(row)
        system = [turn for turn in turns[:1] if turn["role"] == "system"]
        solved_turns = [turn for shot in shots for turn in self._turns(shot) if turn["role"] != "system"]
        return self._chat_example([*system, *solved_turns, *turns[len(system) :]], self._tools(row))

    def _plain(self, row: Row) -> tuple[str, str]:
        if self.row_format is RowFormat.CLASSIFICATION:
            return f"{row['text']}\n\nLabel:", f" {row['label']}"
        if self.row_format is RowFormat.PROMPT_COMPLETION:
            return str(row["prompt"]), str(row["completion"])
        return "", str(row["text"])

    def _turns(self, row: Row) -> list[Turn]:
        """The conversation up to its last assistant turn."""
        if self.row_format is RowFormat.CLASSIFICATION:
            return [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]
        turns = [self._turn(turn) for turn in row["messages"]]
        while turns and turns[-1]["role"] != "assistant":
            turns.pop()
        if not turns:
            raise FineTuneError(
                FailureReason.DATASET_INVALID, f"a row has no assistant message to learn from: {row['messages']!r:.200}"
            )
        return turns

    def _turn(self, turn: Mapping[str, Any]) -> Turn:
        """A turn as chat templates expect it: without what it lacks, its calls of tools as objects."""
        found = {name: value for name, value in turn.items() if value is not None and name != "weight"}
        if "tool_calls" in found:
            found["tool_calls"] = json.loads(found["tool_calls"])
        if found["role"] == "tool" or "tool_calls" in found:
            self._refuse_template_without_tools()
        return found

    def _tools(self, row: Row) -> list[Any] | None:
        """The descriptions of the tools that the model may call."""
        if not row.get("tools"):
            return None
        self._refuse_template_without_tools()
        tools: list[Any] = json.loads(row["tools"])
        return tools

    def _refuse_template_without_tools(self) -> None:
        if "tool" not in self.tokenizer.chat_template:
            raise FineTuneError(
                FailureReason.TOKENIZER_MISMATCH,
                "the rows have calls of tools, which the base model's chat template would leave out; "
                "use a base model whose template knows tools",
            )

    def _chat_example(self, turns: list[Turn], tools: list[Any] | None = None) -> Example:
        render = partial(self.tokenizer.apply_chat_template, tokenize=False, tools=tools)
        prompt: str = render(turns[:-1], add_generation_prompt=True)
        whole: str = render(turns)
        if not whole.startswith(prompt):
            raise FineTuneError(
                FailureReason.TOKENIZER_MISMATCH,
                "the chat template renders a conversation differently with its answer than without it, "
                "so the answer's tokens cannot be told apart",
            )
        answer = turns[-1]["content"]
        # An empty answer is found nowhere: then all of the completion counts as its end.
        before, found, end = whole.removeprefix(prompt).rpartition(answer.strip() or "\0")
        # What follows the end of a turn is never generated. A template that leaves the end open would train a model
        # that never stops.
        return Example(prompt, before + found + (end.rstrip() or self.tokenizer.eos_token), answer)

    # --- tokens ---

    def prompt_ids(self, example: Example) -> list[int]:
        """The prompt as a server would tokenise it."""
        return [*self._prefix(), *self._ids([example.prompt])[0]]

    def tokens(self, rows: Sequence[Row]) -> list[Tokens]:
        """Rows as training tokens; prompts and completions are tokenised apart, as they are when the model answers."""
        if self.marks_assistant:
            return [self._marked_tokens(row) for row in rows]
        return self.example_tokens([self.example(row) for row in rows])

    def example_tokens(self, examples: Sequence[Example]) -> list[Tokens]:
        """Examples as token ids, supervised on their completions."""
        if not examples:
            return []
        prefix = self._prefix()
        prompts = self._ids([example.prompt for example in examples])
        completions = self._ids([example.completion for example in examples])
        return [
            Tokens(
                ids=[*prefix, *prompt, *completion],
                supervised=[False] * (len(prefix) + len(prompt)) + [True] * len(completion),
            )
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def stop_ids(self) -> list[int]:
        """Tokens that end an answer: the end of sequence, and the template's end of turn."""
        stops = {int(self.tokenizer.eos_token_id)}
        if self.is_chat:
            turns: list[Turn] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
            end = self._chat_example(turns).completion.rpartition("x")[2]
            ids = self._ids([end])[0]
            if ids and ids[0] in self.tokenizer.added_tokens_decoder:
                stops.add(ids[0])
        return sorted(stops)

    def _marked_tokens(self, row: Row) -> Tokens:
        encoded = self.tokenizer.apply_chat_template(
            self._turns(row),
            tools=self._tools(row),
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        supervised = [bool(mark) for mark in encoded["assistant_masks"]]
        weights = [turn.get("weight") != 0 for turn in row["messages"] if turn["role"] == "assistant"]
        return Tokens(list(encoded["input_ids"]), supervised if all(weights) else _weighted(supervised, weights))

    def _prefix(self) -> list[int]:
        """The beginning-of-sequence token where the tokenizer adds one; a chat template writes its own."""
        if self.is_chat or self.tokenizer.bos_token_id is None:
            return []
        added = self.tokenizer("")["input_ids"]
        return [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id in added else []

    def _ids(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]


def _weighted(supervised: list[bool], weights: list[bool]) -> list[bool]:
    """The marks without those of turns that are not to be learnt; each run of marks is one assistant's turn.

    Raises:
        FineTuneError: TokenizerMismatch when the runs are not as many as the turns.
    """
    starts = [at for at, mark in enumerate(supervised) if mark and not (at and supervised[at - 1])]
    if len(starts) != len(weights):
        raise FineTuneError(
            FailureReason.TOKENIZER_MISMATCH,
            f"the chat template marks {len(starts)} answers of a conversation with {len(weights)}, so those of "
            "weight 0 cannot be told apart; leave them out of the rows",
        )
    turn_of = accumulate(mark and not before for before, mark in zip([False, *supervised], supervised, strict=False))
    return [mark and weights[turn - 1] for mark, turn in zip(supervised, turn_of, strict=True)]
