"""A run that waits for an endpoint's first reply still hears who ends it."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import pytest
from cli_runner import command, environment, hear_signals, write_scenario
from drive_servers import Peer, RawServer

from loadgen import backends
from loadgen.drive.http import parse_endpoint
from loadgen.drive.once import ask_once

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


def test_a_reply_that_nobody_wants_any_more_is_not_waited_for() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        asked.set()
        peer.until_gone()

    with RawServer(script) as server, pytest.raises(InterruptedError):
        ask_once(parse_endpoint(server.url), HEAD + b"{}", backends.load("openai_chat"), 5.0, 3600.0, asked.is_set)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_whose_endpoint_says_nothing_is_ended_by_the_first_signal(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    started: list[subprocess.Popen[str]] = []
    running = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        running.wait()
        started[0].send_signal(number)
        peer.until_gone()

    with RawServer(script) as server:
        scenario = write_scenario(
            tmp_path,
            f"targets: {{a: {{endpoint: '{server.url}', model: m}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\nload: {concurrency: 1, window_s: 1}\nrepeats: 1\n",
        )
        words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": hear_signals}
        process = subprocess.Popen(command("run", str(scenario)), env=environment(tmp_path / "store"), **words)  # type: ignore[call-overload]
        started.append(process)
        running.set()
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
