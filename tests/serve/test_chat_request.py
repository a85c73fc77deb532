"""Fields of a chat request: their limits, and the error that names the field."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from tumen.serve.chat_request import MAX_MESSAGES, ChatRequest, Role, parse_chat
from tumen.serve.request_checks import RequestError

USER = {"role": "user", "content": "lamp on"}
VALID = {"model": "pocket", "messages": [USER]}
BIG = 1 << 63

# field -> (values that pass, values that do not)
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "stream": ([True, False, None], [1, 0, "true", []]),
    "n": ([1, None], [0, 2, True, 1.0, "1"]),
    "store": ([False, None], [True, 0, "false"]),
    "logprobs": ([False, None], [True, 0, 1]),
    "temperature": ([0, 2, 0.7, None], [-0.01, 2.01, True, "1", 10**400]),
    "top_p": ([0, 1, 0.5, None], [-0.01, 1.01, False, "1"]),
    "frequency_penalty": ([-2, 2, 0.5, None], [-2.01, 2.01, True]),
    "presence_penalty": ([-2, 2, 0.5, None], [-2.01, 2.01, True]),
    "max_tokens": ([1, 1_000_000, None], [0, 1_000_001, True, 1.0, "5"]),
    "max_completion_tokens": ([1, 1_000_000, None], [0, 1_000_001, True, 1.0]),
    "seed": ([0, -BIG, BIG - 1, None], [-BIG - 1, BIG, True, 1.0]),
    "response_format": ([{}, {"type": "text"}, None], ["text", [], 1]),
    "stop": (["x", [], ["a", "b"], None], [1, {}, True]),
    "user": (["me", "", "\ud800", None], [1, [], {}]),
    "metadata": ([{}, {"a": 1}, None], [[], "x", 1]),
    "stream_options": ([{}, {"include_usage": True}, {"x": 1}, None], [[], "x", True]),
    "model": (["a", "\ud800"], [7, [], True]),
}


def error_of(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_chat({**VALID, **fields})
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_field_has_a_test_of_its_limits() -> None:
    assert set(LIMITS) | {"messages"} == set(ChatRequest.model_fields)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, rows in LIMITS.items() for value in rows[0]]
)
def test_a_value_within_the_limits_passes(field: str, value: Any) -> None:
    parse_chat({**VALID, field: value})


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, rows in LIMITS.items() for value in rows[1]]
)
def test_a_value_outside_the_limits_is_an_error_that_names_the_field(
    field: str, value: Any
) -> None:
    error = error_of(**{field: value})
    assert (error.code, error.param) == ("invalid_value", field)
    assert str(error).startswith(f"{field} must be ")


def test_an_unknown_field_is_an_error_that_names_it() -> None:
    error = error_of(tools=[])
    assert (error.code, error.param, str(error)) == (
        "unknown_field",
        "tools",
        "unknown field 'tools'",
    )
    assert error_of(**{"x" * 100: 1}).param == "x" * 40
    assert error_of(**{"\ud800": 1}).param == "\ud800"


@pytest.mark.parametrize("model", [None, ""])
def test_a_missing_model_is_an_error(model: str | None) -> None:
    error = error_of(model=model)
    assert (error.code, error.param) == ("missing_field", "model")


def test_include_usage_must_be_a_flag() -> None:
    for value in (7, None, "yes"):
        error = error_of(stream_options={"include_usage": value})
        assert (error.code, error.param) == ("invalid_value", "stream_options")
        assert str(error) == "stream_options.include_usage must be true or false"
    for value in (True, False):
        request = parse_chat({**VALID, "stream_options": {"include_usage": value}})
        assert request.include_usage is value
    assert parse_chat(VALID).include_usage is False


class TestMessages:
    @pytest.mark.parametrize("messages", [None, [], "hi", {}, [USER] * (MAX_MESSAGES + 1)])
    def test_there_are_1_to_256_messages(self, messages: Any) -> None:
        error = error_of(messages=messages)
        assert (error.code, error.param) == ("invalid_value", "messages")
        assert str(error) == "messages must be a list of 1 to 256 messages"

    def test_256_messages_pass(self) -> None:
        assert parse_chat({**VALID, "messages": [USER] * 256}).sentence == "lamp on"

    @pytest.mark.parametrize("role", get_args(Role))
    def test_every_role_of_the_api_passes(self, role: str) -> None:
        parse_chat({**VALID, "messages": [{"role": role, "content": "x"}, USER]})

    @pytest.mark.parametrize("role", ["root", "", None, 7, [], {}])
    def test_another_role_is_an_error_that_names_the_message(self, role: Any) -> None:
        error = error_of(messages=[USER, {"role": role, "content": "x"}])
        assert (error.code, error.param) == ("invalid_value", "messages[1]")
        assert str(error).startswith("messages[1].role must be one of system, developer, user")

    @pytest.mark.parametrize("message", ["hi", 7, None, []])
    def test_a_message_that_is_not_an_object_is_an_error(self, message: Any) -> None:
        assert error_of(messages=[message]).param == "messages[0]"

    @pytest.mark.parametrize(
        "content",
        [
            None,
            7,
            {},
            [],
            ["text"],
            [{"type": "text"}],
            [{"type": "text", "text": 7}],
            [{"type": "image_url", "image_url": {}}],
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}],
            [{"type": "image_url", "text": "a"}],
        ],
    )
    def test_content_of_the_user_must_be_text(self, content: Any) -> None:
        error = error_of(messages=[USER, {"role": "user", "content": content}])
        assert (error.code, error.param) == ("invalid_value", "messages[1]")
        assert str(error) == "messages[1].content must be text"

    def test_content_of_other_roles_may_be_anything(self) -> None:
        messages = [{"role": "assistant", "content": None}, {"role": "tool", "content": [7]}, USER]
        assert parse_chat({**VALID, "messages": messages}).sentence == "lamp on"

    def test_the_sentence_is_the_last_message_of_the_user(self) -> None:
        messages = [{"role": "user", "content": "first"}, USER, {"role": "tool", "content": "x"}]
        assert parse_chat({**VALID, "messages": messages}).sentence == "lamp on"

    def test_text_parts_are_joined_with_spaces(self) -> None:
        parts = [{"type": "text", "text": "lamp"}, {"type": "text", "text": "off"}]
        request = parse_chat({**VALID, "messages": [{"role": "user", "content": parts}]})
        assert request.sentence == "lamp off"

    def test_without_a_message_of_the_user_it_is_an_error(self) -> None:
        error = error_of(messages=[{"role": "system", "content": "x"}])
        assert (error.code, error.param) == ("invalid_value", "messages")
        assert "role user" in str(error)
