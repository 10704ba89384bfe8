"""What the Hugging Face server takes as a request, and how it makes text of tokens. Nothing is started here."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hf_running import LAUNCHERS
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(LAUNCHERS))
from hf_ask import Reader
from hf_reply import Refused
from hf_text import Detokenizer

LENGTH = 100
READER = Reader(
    served_name="small",
    length=LENGTH,
    vocabulary=50,
    render=lambda messages: [1] * sum(len(message["content"]) for message in messages),
    encode=lambda text: [2] * len(text),
)
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def refusal(body: Any, *, chat: bool) -> Refused:
    with pytest.raises(Refused) as caught:
        READER.ask(body, chat=chat)
    return caught.value


def test_a_chat_may_use_all_that_is_left_and_a_completion_has_sixteen() -> None:
    assert READER.ask(CHAT, chat=True).max_tokens == LENGTH - 5
    assert READER.ask({"prompt": "hello"}, chat=False).max_tokens == 16
    assert READER.ask({"prompt": "h" * 90}, chat=False).max_tokens == 10


def test_fields_are_taken_as_they_are_named() -> None:
    body = {
        **CHAT,
        "model": "small",
        "max_completion_tokens": 7,
        "min_tokens": 3,
        "ignore_eos": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "seed": -4,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    ask = READER.ask(body, chat=True)
    assert (ask.max_tokens, ask.min_tokens, ask.ignore_eos, ask.seed) == (7, 3, True, -4)
    assert (ask.temperature, ask.top_p, ask.top_k) == (0.5, 0.9, 0)
    assert (ask.stream, ask.include_usage, ask.chat) == (True, True, True)


def test_text_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    assert len(READER.ask({"messages": [{"role": "user", "content": parts}]}, chat=True).prompt) == 5


@pytest.mark.parametrize("field", ["n", "presence_penalty", "logprobs", "tools", "stop", "response_format"])
def test_null_is_as_good_as_absent(field: str) -> None:
    assert READER.ask({**CHAT, field: None}, chat=True).prompt


@pytest.mark.parametrize(
    ("more", "param", "sentence"),
    [
        ({"ignore_eso": True}, "ignore_eso", "the nearest known is 'ignore_eos'"),
        ({"n": 2}, "n", "does not do 2; leave it out, or send 1"),
        ({"stop": ["\n"]}, "stop", "does not do"),
        ({"logprobs": True}, "logprobs", "does not do True"),
        ({"max_tokens": 0}, "max_tokens", "is 0 and must be a whole number of 1 or more"),
        ({"max_tokens": 96}, "max_tokens", "max_tokens is 96 and the prompt has 5 tokens: 101 together"),
        ({"max_tokens": True}, "max_tokens", "is True and must be a whole number"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens", "min_tokens is 5 and max_tokens 4"),
        ({"temperature": -1}, "temperature", "must be a number from 0 up"),
        ({"temperature": "0"}, "temperature", "is '0' and must be a number"),
        ({"top_p": 1.5}, "top_p", "from 0 to 1"),
        ({"seed": 1.5}, "seed", "must be a whole number."),
        ({"ignore_eos": 1}, "ignore_eos", "must be true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream: true"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options", "stream_options.usage is unknown"),
        ({"prompt": "hello"}, "prompt", "belongs to /v1/completions"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": ["hello"]}, "messages", "messages[0] must be an object"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages", "The prompt is empty"),
    ],
)
def test_what_is_wrong_in_a_chat_is_named(more: dict[str, Any], param: str, sentence: str) -> None:
    error = refusal({**CHAT, **more}, chat=True)
    assert (error.status, error.param) == (400, param)
    assert sentence in error.message


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "The prompt is empty"),
        ([], "The prompt is empty"),
        (None, "must be a text or a list of token ids"),
        (["one", "two"], "holds 2 prompts"),
        ([1, 50], "prompt[1] is 50, and a token id of this model is a whole number from 0 to 49"),
        ([1, True], "prompt[1] is True"),
        ("h" * 100, "The prompt has 100 tokens, and prompt and reply may have 100 together"),
    ],
)
def test_what_is_wrong_in_a_prompt_is_named(prompt: Any, sentence: str) -> None:
    error = refusal({"prompt": prompt}, chat=False)
    assert error.status == 400
    assert sentence in error.message


def test_another_models_name_is_not_found() -> None:
    error = refusal({**CHAT, "model": "large"}, chat=True)
    assert (error.status, error.code) == (404, "model_not_found")
    assert "serves 'small'" in error.message


def test_a_body_that_is_no_object_is_refused() -> None:
    assert "not a JSON object" in refusal([CHAT], chat=True).message


def as_bytes(ids: list[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(ids).decode(errors="replace")


@given(st.text(max_size=40))
def test_a_text_in_bytes_comes_back_whole_and_never_broken(text: str) -> None:
    detokenizer = Detokenizer(as_bytes)
    pieces = [detokenizer.add(byte) for byte in text.encode()]
    assert "".join(pieces) + detokenizer.end() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces if "\N{REPLACEMENT CHARACTER}" not in text)


def test_a_character_comes_with_its_last_byte() -> None:
    detokenizer = Detokenizer(as_bytes)
    assert [detokenizer.add(byte) for byte in "a🎉b".encode()] == ["a", "", "", "", "🎉", "b"]


def test_bytes_that_are_no_character_are_not_held_back_for_ever() -> None:
    detokenizer = Detokenizer(as_bytes)
    pieces = [detokenizer.add(0xFF) for _ in range(8)]
    assert "".join(pieces) == "\N{REPLACEMENT CHARACTER}" * 8


def test_an_unfinished_character_comes_out_at_the_end() -> None:
    detokenizer = Detokenizer(as_bytes)
    assert detokenizer.add("é".encode()[0]) == ""
    assert detokenizer.end() == "\N{REPLACEMENT CHARACTER}"
