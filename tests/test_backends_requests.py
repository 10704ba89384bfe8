"""What the backends ask: each engine's own fields and no others, and a sentence where a prompt cannot be carried."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loadgen import backends
from loadgen.backends import RequestOptions
from loadgen.errors import UsageError
from loadgen.record import Message, Prompt

CHAT = Prompt(source="natural", ask_tok=8, messages=(Message("system", "Be brief."), Message("user", "Hi")))
TEXT = Prompt(source="natural", ask_tok=8, text="<|im_start|>user\nHi")
IDS = Prompt(source="synthetic", ask_tok=8, token_ids=(5, 6, 7))
EXACT = {"ignore_eos": True, "min_tokens": "{n}"}
OPTIONS = RequestOptions(model="m", sampling={"temperature": 0.7, "seed": 1})


@pytest.mark.parametrize(
    ("name", "prompt", "body"),
    [
        (
            "openai_chat",
            CHAT,
            {
                "model": "m",
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
                "max_tokens": 8,
                "temperature": 0.7,
                "seed": 1,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
        (
            "openai_completions",
            IDS,
            {
                "model": "m",
                "prompt": [5, 6, 7],
                "max_tokens": 8,
                "temperature": 0.7,
                "seed": 1,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
        (
            "tgi_generate",
            TEXT,
            {
                "inputs": "<|im_start|>user\nHi",
                "parameters": {
                    "max_new_tokens": 8,
                    "details": True,
                    "temperature": 0.7,
                    "seed": 1,
                    "do_sample": True,
                },
                "stream": True,
            },
        ),
        (
            "llamacpp_completion",
            IDS,
            {
                "model": "m",
                "prompt": [5, 6, 7],
                "n_predict": 8,
                "stream": True,
                "return_tokens": True,
                "temperature": 0.7,
                "seed": 1,
            },
        ),
        (
            "ollama",
            CHAT,
            {
                "model": "m",
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
                "stream": True,
                "options": {"num_predict": 8, "temperature": 0.7, "seed": 1},
            },
        ),
        (
            "ollama_generate",
            TEXT,
            {
                "model": "m",
                "prompt": "<|im_start|>user\nHi",
                "raw": True,
                "stream": True,
                "options": {"num_predict": 8, "temperature": 0.7, "seed": 1},
            },
        ),
        (
            "sglang_generate",
            IDS,
            {
                "input_ids": [5, 6, 7],
                "sampling_params": {"max_new_tokens": 8, "temperature": 0.7, "seed": 1},
                "stream": True,
            },
        ),
    ],
)
def test_a_request_has_the_fields_of_its_engine_and_no_others(name: str, prompt: Prompt, body: dict[str, Any]) -> None:
    assert backends.load(name).body(prompt, OPTIONS) == body


@pytest.mark.parametrize("name", backends.names())
@pytest.mark.parametrize("prompt", [CHAT, TEXT, IDS], ids=["messages", "text", "token_ids"])
def test_a_prompt_in_a_form_that_a_protocol_lacks_is_refused_in_a_sentence(name: str, prompt: Prompt) -> None:
    backend = backends.load(name)
    form = next(f for f in ("messages", "text", "token_ids") if getattr(prompt, f) is not None)
    if form in backend.ACCEPTS:
        assert backend.body(prompt, OPTIONS)
    else:
        with pytest.raises(UsageError, match=rf"workload '{prompt.source}'.* backend {name} .*\.$"):
            backend.body(prompt, OPTIONS)


@pytest.mark.parametrize("name", backends.names())
def test_a_whole_reply_is_asked_for_without_stream_options(name: str) -> None:
    backend = backends.load(name)
    prompt = {"messages": CHAT, "text": TEXT, "token_ids": IDS}[backend.ACCEPTS[0]]
    body = backend.body(prompt, RequestOptions(model="m", stream=False))
    assert not body.get("stream")
    assert "stream_options" not in body
    if name.startswith("ollama"):
        assert body["stream"] is False  # where silence would mean a stream


@pytest.mark.parametrize(
    ("name", "prompt", "place"),
    [
        ("openai_chat", CHAT, ()),
        ("openai_completions", TEXT, ()),
        ("llamacpp_completion", TEXT, ()),
        ("sglang_generate", TEXT, ("sampling_params",)),
    ],
)
def test_exactly_n_tokens_are_asked_for_only_when_they_are_wanted(name: str, prompt: Prompt, place: tuple[str]) -> None:
    own = name in ("llamacpp_completion", "sglang_generate")
    options = RequestOptions(model="m", exact_fields={} if own else EXACT)
    exact = backends.load(name).body(msgspec.structs.replace(prompt, exact=True), options)
    loose = backends.load(name).body(prompt, options)
    for key in place:
        exact, loose = exact[key], loose[key]
    assert exact["ignore_eos"] is True
    assert own or exact["min_tokens"] == 8
    assert "ignore_eos" not in loose
    assert "min_tokens" not in loose


def test_the_fields_of_a_target_add_to_an_object_and_do_not_replace_it() -> None:
    options = RequestOptions(model="m", fields={"sampling_params": {"stop": ["END"]}, "lora_path": "x"})
    body = backends.load("sglang_generate").body(TEXT, options)
    assert body["sampling_params"] == {"max_new_tokens": 8, "stop": ["END"]}
    assert body["lora_path"] == "x"


def test_a_number_stands_for_n_alone_and_text_for_n_inside_text() -> None:
    fields = {"generation_config": '{"min_new_tokens":{n}}', "nested": [{"min": "{n}"}]}
    options = RequestOptions(model="m", exact_fields=fields)
    assert backends.exact_fields(options, 5) == {"generation_config": '{"min_new_tokens":5}', "nested": [{"min": 5}]}


def test_tgi_is_not_sent_the_neutral_values_that_it_refuses() -> None:
    options = RequestOptions(model="m", sampling={"temperature": 0, "top_p": 1.0, "top_k": 0, "seed": 3})
    parameters = backends.load("tgi_generate").body(TEXT, options)["parameters"]
    assert parameters == {"max_new_tokens": 8, "details": True, "seed": 3, "do_sample": False}
