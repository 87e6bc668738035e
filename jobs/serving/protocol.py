"""What is asked of gateway and engines over HTTP: OpenAI's chat and text completions, and its shape of errors.

The gateway checks a request before it counts or forwards it; an engine checks it again, because it may be called
inside the cluster without the gateway. A parameter that no engine here knows is refused by its name, as OpenAI does:
one that is silently left out would change the answer. Imports neither Ray nor torch: the gateway has neither.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MAX_CHOICES = 16
"""Most answers to one prompt: each takes the place of a request of its own."""
MAX_STOPS = 4


def _null_is(default: object) -> BeforeValidator:
    """OpenAI reads null as "not given", and its Python client sends null for None."""
    return BeforeValidator(lambda value: default if value is None else value)


Stop = Annotated[str, Field(min_length=1, max_length=256)]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class StreamOptions(_Model):
    """What a stream tells besides its text."""

    include_usage: bool = False
    """A last chunk without choices that counts the tokens."""


class TextPart(_Model):
    """One piece of a message; text is the only kind."""

    type: Literal["text"]
    text: str


class Message(_Model):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    @property
    def text(self) -> str:
        """The whole content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Request(_Model):
    """What both kinds of request share."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an answer; None: what the context leaves, within the gateway's limit."""
    temperature: Annotated[float, Field(ge=0, le=2), _null_is(1.0)] = 1.0
    """0: the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1), _null_is(1.0)] = 1.0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), _null_is(1)] = 1
    """Answers to give."""
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    """Texts that end an answer; they are not part of it."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2), _null_is(0.0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2), _null_is(0.0)] = 0.0
    stream: Annotated[bool, _null_is(False)] = False
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    """Whoever asks, as the client names them: keeps them on one variant of an A/B test."""

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer, as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        """Whether a stream's last chunk counts the tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Request):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """OpenAI's newer name of `max_tokens`; it wins."""

    @property
    def answer_tokens(self) -> int | None:
        """Most tokens of an answer, by either name."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Request):
    """`POST /v1/completions`."""

    prompt: str
    echo: Annotated[Literal[False], _null_is(False)] = False

    @property
    def answer_tokens(self) -> int | None:
        """Most tokens of an answer."""
        return self.max_tokens


class ApiError(Exception):
    """An answer other than 2xx, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON body: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that belong to the error: Retry-After, where waiting helps."""
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


AnyRequest = TypeVar("AnyRequest", bound=BaseModel)

_TYPE_OF_UNION = re.compile(r"(constrained-)?str|list\[.*\]")
"""What pydantic adds to the place of an error to say which type of a union it tried."""


def parse(body: bytes, kind: type[AnyRequest]) -> AnyRequest:
    """The request in `body`. Raises ApiError (400) that names what is wrong first, and never repeats a prompt."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not _TYPE_OF_UNION.fullmatch(str(part))) or None
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not valid JSON in UTF-8.", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized or unsupported parameter: {where}.", code="unknown_parameter", param=where)
    if first["type"] == "missing":
        return ApiError(400, f"Missing required parameter: {where}.", code="missing_required_parameter", param=where)
    said = first["msg"][:1].lower() + first["msg"][1:]
    return ApiError(400, f"Invalid value of {where or 'the body'}: {said}.", code="invalid_value", param=where)
