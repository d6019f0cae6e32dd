"""OpenAI's requests: what is understood, what is harmless, and what is refused rather than ignored."""

import random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from finetune_server.errors import bad_request
from finetune_server.requests import GenerationRequest
from finetune_server.sampling import Sampling

_HARMLESS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
)
"""Known fields that do not change what this engine would answer."""

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "tool_choice": ("auto", "none"),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
}
"""Known fields that this engine has only one value of."""

_DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's."""

StopText = Annotated[str, Field(min_length=1, max_length=200)]


class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool = False


class OpenAIRequest(BaseModel):
    """What completions and chat completions have in common."""

    model_config = ConfigDict(extra="allow")

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = None

    def refuse_unsupported(self) -> None:
        """Refuse what would otherwise be silently ignored.

        Raises:
            ApiError: 400, naming the field, in OpenAI's words where it has them.
        """
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _HARMLESS:
                continue
            if name not in _NEUTRAL:
                raise bad_request(f"Unrecognized request argument supplied: {name[:100]}", name[:100])
            if value not in _NEUTRAL[name]:
                raise bad_request(f"{name}: this engine only supports {_NEUTRAL[name][0]!r}", name)

    def sampling(self) -> Sampling:
        """The sampling settings; OpenAI's default temperature is 1."""
        # torch takes 64 bits; clients may send any integer.
        seed = random.getrandbits(63) if self.seed is None else self.seed & (2**63 - 1)
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=seed,
        )

    def stop_texts(self) -> tuple[str, ...]:
        """The stop sequences as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def generation(
        self, model: str, adapter: str, prompt: list[int], max_tokens: int, alternatives: int
    ) -> GenerationRequest:
        """What the engine is asked for.

        Args:
            model: The name that was asked for.
            adapter: peft's key of its adapter, or BASE.
            prompt: Token ids.
            max_tokens: Of the answer.
            alternatives: How many each token is reported with.
        """
        return GenerationRequest(
            model=model,
            adapter=adapter,
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=self.sampling(),
            stop=self.stop_texts(),
            top_logprobs=alternatives,
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(OpenAIRequest):
    """`POST /v1/completions`."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def one_prompt(self) -> str | list[int]:
        """The prompt, as text or as token ids.

        Raises:
            ApiError: 400 when there are several.
        """
        prompt = self.prompt
        if isinstance(prompt, str) or not prompt:
            return "" if isinstance(prompt, list) else prompt
        if isinstance(prompt[0], int):
            return [token for token in prompt if isinstance(token, int)]
        if len(prompt) > 1:
            raise bad_request(f"prompt: {len(prompt)} prompts were given; send one per request", "prompt")
        return prompt[0]

    @property
    def wanted_tokens(self) -> int:
        """The longest answer."""
        return self.max_tokens or _DEFAULT_COMPLETION_TOKENS


class TextPart(BaseModel):
    """A part of a message's content; only text can be served."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message; fields beside role and content go to the chat template as they are."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[TextPart] | None = None

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it: content is one string.

        Raises:
            ApiError: 400 for content that is not text.
        """
        content = self.content
        if isinstance(content, list):
            odd = [part.type for part in content if part.type != "text" or part.text is None]
            if odd:
                raise bad_request(f"messages: content of type {odd[0]!r} is not supported; only text is", "messages")
            content = "".join(part.text or "" for part in content)
        return {"role": self.role, "content": content or "", **(self.model_extra or {})}


class ChatRequest(OpenAIRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None

    @property
    def wanted_tokens(self) -> int | None:
        """The longest answer; None: as long as fits."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int:
        """How many alternatives per token.

        Raises:
            ApiError: 400 when top_logprobs is set without logprobs.
        """
        if self.top_logprobs and not self.logprobs:
            raise bad_request("top_logprobs: set logprobs to true with it", "top_logprobs")
        return self.top_logprobs or 0
