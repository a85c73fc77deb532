"""The body of `POST /v1/chat/completions`, checked field by field.

The fields are those of OpenAI's chat completions API. Decoding is greedy and an answer is always
one whole action, so most sampling fields change nothing; they are checked all the same, because a
client that sends nonsense should learn of it. Unknown fields are rejected, not ignored: a client
that asks for `tools` must not believe that it got them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from tumen.serve.request_checks import RequestError

MAX_MESSAGES = 256
MAX_NAME_CHARACTERS = 40  # of a client's own field name that an error message repeats
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


def _require_false(value: bool) -> bool:
    """Reject `true`, which would ask for something that is not there."""
    if value:
        raise PydanticCustomError("not_false", "must be false")
    return value


Flag = Annotated[bool | None, Field(description="true or false")]
Penalty = Annotated[float | None, Field(ge=-2, le=2, description="a number from -2 to 2")]
TokenCount = Annotated[
    int | None, Field(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")
]
OnlyFalse = Annotated[bool, AfterValidator(_require_false)]
Object = Annotated[dict[str, Any] | None, Field(description="an object")]
Text = Annotated[str | None, Field(description="text")]


class ChatMessage(BaseModel):
    """One message; other fields, such as `tool_calls`, are ignored."""

    role: Role
    content: Any = None

    @property
    def text(self) -> str | None:
        """The content as text; `None` if it is neither text nor a list of text parts."""
        if isinstance(self.content, str):
            return self.content
        if not isinstance(self.content, list):
            return None
        # Images and sounds are not understood, so a message that has one is rejected as a whole.
        texts = []
        for part in self.content:
            text = _part_text(part)
            if text is None:
                return None
            texts.append(text)
        if not texts:
            return None
        return " ".join(texts)


def _part_text(part: Any) -> str | None:
    """Return the text of a content part, `None` for a part of another type."""
    if not isinstance(part, dict) or part.get("type") != "text":
        return None
    text = part.get("text")
    if not isinstance(text, str):
        return None
    return text


class StreamOptions(BaseModel):
    """`stream_options`; other fields are ignored."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class ChatRequest(BaseModel):
    """A checked request. A field that is null counts as absent.

    A field's description completes the error message "FIELD must be ...".
    """

    model_config = ConfigDict(strict=True)

    model: Text = None
    messages: list[ChatMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, description=f"a list of 1 to {MAX_MESSAGES} messages"
    )
    stream: Flag = None
    stream_options: StreamOptions | None = Field(None, description="an object")
    n: int | None = Field(None, ge=1, le=1, description="1: there is one answer")
    store: OnlyFalse | None = Field(None, description="false: nothing is kept")
    logprobs: OnlyFalse | None = Field(
        None, description="false: see tumen.confidence in the answer"
    )
    # Accepted without effect:
    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    max_tokens: TokenCount = None
    max_completion_tokens: TokenCount = None
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63, description="a whole number")
    response_format: Object = None
    stop: str | list[Any] | None = Field(None, description="text or a list")
    user: Text = None
    metadata: Object = None

    @property
    def sentence(self) -> str | None:
        """The text of the user's last message; `None` without a message of that role."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        return None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        if self.stream_options is None:
            return False
        return self.stream_options.include_usage


def parse_chat(tree: Mapping[str, Any]) -> ChatRequest:
    """Check the parsed body of a chat request.

    Raises:
        RequestError: 400, naming the field.
    """
    _reject_unknown_fields(tree)
    try:
        request = ChatRequest.model_validate(tree)
    except ValidationError as error:
        # Without the input: the message must not repeat what was said.
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise _request_error(details[0]) from None
    if not request.model:
        raise RequestError(
            400, "missing_field", "model is missing; /v1/models lists the models", "model"
        )
    for index, message in enumerate(request.messages):
        if message.role == "user" and message.text is None:
            where = f"messages[{index}]"
            raise RequestError(400, "invalid_value", f"{where}.content must be text", where)
    # A conversation of system and assistant messages asks for nothing.
    if request.sentence is None:
        why = "messages has no message of the role user"
        raise RequestError(400, "invalid_value", why, "messages")
    return request


def _reject_unknown_fields(tree: Mapping[str, Any]) -> None:
    """Reject the first unknown field of a request.

    Pydantic would do so, but list all of a hostile request's thousands.
    """
    for name in tree:
        if name not in ChatRequest.model_fields:
            shown = name[:MAX_NAME_CHARACTERS]
            raise RequestError(400, "unknown_field", f"unknown field {shown!r}", shown)


def _request_error(detail: ErrorDetails) -> RequestError:
    """Translate pydantic's first error into one with OpenAI's code and parameter."""
    path = detail["loc"]
    field = str(path[0])
    if field == "messages" and len(path) > 1:
        where = f"messages[{path[1]}]"
        text = f"{where}.role must be one of {', '.join(get_args(Role))}"
        return RequestError(400, "invalid_value", text, where)
    if field == "stream_options" and len(path) > 1:
        text = "stream_options.include_usage must be true or false"
        return RequestError(400, "invalid_value", text, field)
    description = ChatRequest.model_fields[field].description
    return RequestError(400, "invalid_value", f"{field} must be {description}", field)
