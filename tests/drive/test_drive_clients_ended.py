"""Other people's clients whose requests never end, or bring what nobody can read: the worker ends as ever."""

from __future__ import annotations

from pathlib import Path

from cli_runner import Done, loadgen, write_scenario
from drive_servers import STREAM, Peer, RawServer, chunk, page


def run(folder: Path, answer: bytes, more: str) -> Done:
    """A run by httpx against a server that has a good word for the probe, and this answer for all that stream."""
    good = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}'

    def script(peer: Peer) -> None:
        while True:
            body = peer.request()[1]
            peer.send(answer if b'"stream":true' in body.replace(b" ", b"") else page("200 OK", good))

    with RawServer(script) as server:
        text = (
            f"targets: {{a: {{endpoint: '{server.url}', model: m}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\n"
            f"load: {{driver: httpx, concurrency: 2, warmup_s: 0, window_s: 0.3, workers: 1, {more}}}\n"
            "repeats: 1\n"
        )
        return loadgen(folder, "run", str(write_scenario(folder, text)))


def test_requests_that_are_given_up_do_not_take_the_worker_with_them(tmp_path: Path) -> None:
    done = run(tmp_path, STREAM, "drain_s: 0.1, stall_timeout_s: 0.35")
    assert "Traceback" not in done.err
    assert "worker 0" not in done.out
    assert {record.status for record in done.records(done.attempts()[0])} <= {"stalled", "cancelled"}


def test_what_a_client_cannot_decode_is_malformed_at_once(tmp_path: Path) -> None:
    deep = chunk(b'data: {"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n")
    done = run(tmp_path, STREAM + deep, "drain_s: 30, stall_timeout_s: 60")
    assert {record.status for record in done.records(done.attempts()[0])} == {"malformed"}
