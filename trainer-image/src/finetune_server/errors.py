"""What can be wrong with a request: raised anywhere, put into the client's own error shape once, in `gate`.

ApiError(status, message)
└── carries OpenAI's `type`, `code` and `param`, and TGI's `error_type`
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

_SHOWN_INPUT = 60
"""Characters of a refused value that the message repeats."""


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Take what happened and what to do.

        Args:
            status: HTTP status.
            message: For a person; names the field and its value.
            code: OpenAI's machine-readable code.
            param: The field of the request.
            retry_after: Seconds after which trying again makes sense.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers beside the message."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def as_openai(self) -> dict[str, object]:
        """The body that OpenAI's clients expect."""
        kind = "invalid_request_error" if self.status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
        if self.status is HTTPStatus.TOO_MANY_REQUESTS:
            kind = "rate_limit_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def as_tgi(self) -> dict[str, object]:
        """The body that TGI's clients expect."""
        kinds = {
            HTTPStatus.TOO_MANY_REQUESTS: "overloaded",
            HTTPStatus.SERVICE_UNAVAILABLE: "overloaded",
            HTTPStatus.INTERNAL_SERVER_ERROR: "generation",
            HTTPStatus.GATEWAY_TIMEOUT: "generation",
        }
        return {"error": str(self), "error_type": kinds.get(self.status, "validation")}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the client has to change something."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def describe(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """Validation errors (pydantic's) as one sentence of the first with the field's path and value, and the field."""
    first = errors[0]
    path = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']} (character {path})", None
    if first["type"] == "missing":
        return f"{path or 'body'}: is required", path or None
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN_INPUT else shown[:_SHOWN_INPUT] + "..."
    return f"{path or 'body'}: {first['msg']}, not {shown}", path or None
