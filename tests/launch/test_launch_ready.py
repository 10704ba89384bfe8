"""Readiness: what a server must show before it is measured, and how its failures are said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_engine import Make
from ports import quiet_port

from loadgen.errors import LaunchError
from loadgen.launch import (
    LaunchCancelled,
    LaunchSpec,
    PortLost,
    Server,
    load_recipe,
    render,
    start,
    start_ready,
)
from loadgen.launch.hints import hint


def test_readiness_asks_one_exact_token_by_the_backend(make: Make, folder: Path) -> None:
    with start_ready(make(options={"load": True}), folder) as server:
        loaded, asked = [line for line in server.log_tail() if line.startswith("asked")]
    assert loaded == 'asked {"model": "m/x"} None'
    assert json.loads(asked.removeprefix("asked ").removesuffix(" None")) == {
        "model": "m/x",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "temperature": 0,
        "ignore_eos": True,
        "min_tokens": 1,
    }


def test_a_server_that_dies_while_loading_is_noticed_at_once_with_its_last_lines(
    launched: Callable[..., Server],
) -> None:
    server = launched("dies", options={"delay": 0.3})
    with pytest.raises(LaunchError) as caught:
        server.wait_ready()
    noticed = time.time()
    sentence = str(caught.value)
    assert "mine (target t) died while loading, exit code 1" in sentence
    assert str(server.log_path) in sentence
    assert sentence.count("\n  line ") == 19  # twenty lines with the last one
    assert sentence.endswith("no memory for this model")
    assert noticed - server.log_path.stat().st_mtime < 10  # and not after the 30 s that it has to become ready


def test_a_server_that_was_killed_is_said_to_be(launched: Callable[..., Server]) -> None:
    with pytest.raises(LaunchError, match="died while loading, ended by SIGKILL"):
        launched("killed").wait_ready()


def test_a_healthy_server_that_dies_at_the_first_request_is_not_ready(launched: Callable[..., Server]) -> None:
    with pytest.raises(LaunchError, match="died while loading, exit code 3"):
        launched("sick").wait_ready()


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("misnamed", "serves 'another' and not 'm/x'"),
        ("failing", "answered POST /v1/chat/completions with HTTP 500: .*out of pages"),
        ("strict", "answered POST /v1/chat/completions with HTTP 400: .*unknown field ignore_eos"),
        ("html", "something that is not openai_chat: <html>hello"),
        ("mute", "without a token"),
    ],
)
def test_a_healthy_server_that_cannot_serve_is_not_ready(
    launched: Callable[..., Server], mode: str, reason: str
) -> None:
    server = launched(mode)
    with pytest.raises(LaunchError, match=reason) as caught:
        server.wait_ready()
    assert str(server.log_path) in str(caught.value)


def test_a_server_that_is_never_ready_is_given_up_with_what_it_still_waits_for(
    launched: Callable[..., Server],
) -> None:
    with pytest.raises(LaunchError, match=r"not ready after 1 s; it still waits for GET /health \(.*connect"):
        launched("never").wait_ready(timeout_s=0.6)


def test_an_interrupt_ends_the_wait_at_once(launched: Callable[..., Server]) -> None:
    begun = time.monotonic()
    with pytest.raises(LaunchCancelled):
        launched("never").wait_ready(cancelled=lambda: time.monotonic() - begun > 0.2)
    assert time.monotonic() - begun < 15  # and not after the 30 s that it has to become ready


def test_an_answer_from_another_server_on_our_port_is_not_ours(make: Make, folder: Path) -> None:
    with start_ready(make(), folder) as other:
        server = start(make("never")(other.command.port), folder.with_name("t-2"))
        try:
            with pytest.raises(PortLost, match="is answered by another process"):
                server.wait_ready()
        finally:
            server.stop()
        assert other.alive()


def test_a_redirect_is_an_answer_and_is_not_followed_with_the_key(
    launched: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-1234567890")
    server = launched("redirecting", api_key_env="OUR_KEY")
    with pytest.raises(LaunchError, match="answered POST /v1/chat/completions with HTTP 307"):
        server.wait_ready()
    assert [line for line in server.log_tail() if line.startswith("asked")] == server.log_tail()[-1:]


@pytest.mark.parametrize(("mode", "served"), [("listing", True), ("misnamed", False)])
def test_tgis_list_of_one_reply_and_the_model_that_its_info_names_are_understood(
    make: Make, folder: Path, tmp_path: Path, mode: str, served: bool
) -> None:
    make()  # writes the engine and its recipe
    text = (tmp_path / "mine.yaml").read_text().replace("models: /v1/models", "models: /info")
    (tmp_path / "tgi.yaml").write_text(f"{text}backend: tgi_generate\n")
    spec = LaunchSpec(name="t", engine="./tgi.yaml", model="m/x", options={"mode": mode})
    command = render(load_recipe("./tgi.yaml", tmp_path), spec, port=quiet_port(), run_id="r", launchers=tmp_path)
    with start(command, folder) as server:
        if served:
            server.wait_ready()
        else:
            with pytest.raises(LaunchError, match="serves 'another' and not 'm/x'"):
                server.wait_ready()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device: '/x'", "A disk is full: free space"),
        ("docker: Cannot connect to the Docker daemon at unix:///x. Is it running?", "The container engine does not"),
        ("manifest unknown", "The image could not be fetched"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to", "The GPU has too little free memory"),
        ("/x/python: No module named vllm", "Its python has no module vllm: install it so"),
        ("Setting max batch total tokens to 5", ""),
    ],
)
def test_a_last_line_that_has_one_meaning_is_explained(line: str, sentence: str) -> None:
    said = hint(["loading", line, "Traceback"], "install it so")
    assert said.startswith(sentence)
    assert bool(said) is bool(sentence)


def test_the_meaning_of_a_death_stands_before_its_log(launched: Callable[..., Server]) -> None:
    server = launched("dies", options={"say": ["write failed: No space left on device"]})
    with pytest.raises(LaunchError, match=r"died while loading, .*\nA disk is full: .*\nThe last lines of"):
        server.wait_ready()
