"""A plan says what `run` would refuse on this machine, asks no hub for it, and is a plan all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import loadgen
from scenario_text import ENDPOINT, REFUSED, SMALLEST, put

MIX = "mix, mix: {chat: {prompts: natural}, code: {prompts: synthetic, input_tokens: 9, vocab_size: 9999}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *REFUSED,
        (ENDPOINT.replace("natural", MIX), "workload 'code' makes no chat messages"),
        (
            ENDPOINT.replace("natural", MIX).replace("model: a", "model: a, backend: openai_completions"),
            "workload 'chat' makes prompts as messages",
        ),
        (ENDPOINT.replace("model: a", "model: a, api_key_env: NO_SUCH_KEY"), "environment has no variable NO_SUCH_KEY"),
    ],
)
def test_a_plan_says_what_a_run_would_refuse_here(text: str, said: str, tmp_path: Path) -> None:
    put(tmp_path, text)
    done = loadgen(tmp_path, "plan", "x.yaml")
    assert done.err.startswith("loadgen: `loadgen run` would refuse this here: ")
    assert said in done.err


@pytest.mark.parametrize("text", [SMALLEST, ENDPOINT])
def test_a_plan_of_what_a_run_would_take_says_nothing_of_it(text: str, tmp_path: Path) -> None:
    put(tmp_path, text)  # the model `a` is a hub's: a plan asks nobody for it
    done = loadgen(tmp_path, "plan", "x.yaml")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("words", [("plan", "x.yaml"), ("plan", "x.yaml", "--commands")])
def test_a_plan_prints_no_control_character_of_a_models_name(words: tuple[str, ...], tmp_path: Path) -> None:
    put(tmp_path, SMALLEST.replace("model: a", 'model: "a\\e[31mb\\x9b"'))
    done = loadgen(tmp_path, *words)
    assert done.code == 0, done.err
    assert "a [31mb" in done.out
    assert all(c.isprintable() or c == "\n" for c in done.out)
