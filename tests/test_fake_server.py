"""The fake server does what its script says, and its truth says what it did. No test depends on how fast it is."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import socket
import ssl
import threading
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeServer, sse_events

Start = Callable[..., FakeServer]
FAST: dict[str, Any] = {"ttft_ms": 2, "gap_ms": 1, "tokens": 4}


def ask(server: FakeServer, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    asked = {} if "prompt" in fields else {"messages": [{"role": "user", "content": "one two three"}]}
    body = {**asked, "stream": True, **fields}
    connection.request("POST", path, json.dumps(body), {"x-request-id": "mine"})
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply.status, data


def raw(server: FakeServer, until: bytes = b"", **fields: Any) -> bytes:
    """Every byte that comes back, up to ``until`` or the end of the connection."""
    body = json.dumps({"messages": [], "stream": True, **fields}).encode()
    with socket.create_connection((server.host, server.port), timeout=60) as sock:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        sock.sendall(head + body)
        found = b""
        while not until or until not in found:
            data = sock.recv(65536)
            if not data:
                break
            found += data
    return found


def test_tokens_leave_on_an_absolute_schedule_and_never_early(fake_server: Start) -> None:
    server = fake_server(ttft_ms=50, gap_ms=10, tokens=80)
    asking = threading.Thread(target=ask, args=(server,))
    asking.start()
    while server.stats()["writes"] < 10:
        time.sleep(0.01)
    os.kill(server.process.pid, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(server.process.pid, signal.SIGCONT)
    asking.join()
    (truth,) = server.truth(1)
    sent = [(w[0] - truth["t_request_read"]) / 1e6 for w in truth["writes"] if w[3] == "token"]
    lateness = [at - (50 + 10 * i) for i, at in enumerate(sent)]
    assert len(sent) == 80
    assert min(lateness) >= 0
    assert max(lateness) > 150  # what was due while the server was held up
    assert min(lateness[40:]) < 100  # moves nothing that comes after it


def test_the_truth_names_the_request_and_encloses_each_write(fake_server: Start) -> None:
    server = fake_server(**FAST)
    before = time.monotonic_ns()
    ask(server, stream_options={"include_usage": True})
    after = time.monotonic_ns()
    (truth,) = server.truth(1)
    times = [truth["t_accept"], truth["t_request_read"], *(t for w in truth["writes"] for t in w[:2])]
    assert truth["id"] == "mine"
    assert truth["body"]["messages"][0]["content"] == "one two three"
    assert times == sorted(times)
    assert before < times[0] < times[-1] < after + 1e9
    assert [w[3] for w in truth["writes"]] == ["head", "role", *["token"] * 4, "finish", "usage", "done", "end"]
    assert (truth["tokens_sent"], truth["in_tok"], truth["end"], truth["aborted"]) == (4, 3, "keep", False)


def test_max_tokens_counts_where_the_script_names_no_number(fake_server: Start) -> None:
    server = fake_server(ttft_ms=0, gap_ms=0)
    _, body = ask(server, max_tokens=7, stream_options={"include_usage": True})
    assert sse_events(body)[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}


def test_usage_of_its_own_is_sent_only_to_those_who_ask(fake_server: Start) -> None:
    server = fake_server(**FAST)
    _, body = ask(server)
    assert b"usage" not in body


def test_a_connection_is_kept_for_the_next_request(fake_server: Start) -> None:
    server = fake_server(**FAST)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", b'{"stream": true}')
        assert connection.getresponse().read().endswith(b"[DONE]\n\n")
    connection.close()
    first, second = server.truth(2)
    assert first["t_accept"] == second["t_accept"]


def test_a_client_that_leaves_is_logged_as_aborted(fake_server: Start) -> None:
    server = fake_server(ttft_ms=1, gap_ms=1, tokens=5000)
    raw(server, until=b"w1 ")
    (truth,) = server.truth(1)
    assert truth["aborted"]
    assert truth["tokens_sent"] < 5000


@pytest.mark.parametrize(
    ("path", "dialect", "last"),
    [
        ("/v1/completions", "openai_completions", {"finish_reason": "length"}),
        ("/generate_stream", "tgi", {"generated_text": "w0 w1 w2 w3 "}),
        ("/completion", "llamacpp", {"tokens_predicted": 4}),
        ("/generate", "sglang", {"text": "w0 w1 w2 w3 ", "output_ids": [1000, 1001, 1002, 1003]}),
    ],
)
def test_the_path_chooses_the_dialect(fake_server: Start, path: str, dialect: str, last: dict[str, Any]) -> None:
    server = fake_server(**FAST)
    _, body = ask(server, path)
    found = [e for e in sse_events(body) if e != "[DONE]"][-1]
    found = found.get("choices", [found])[0]
    assert {name: found[name] for name in last} == last


def test_ollama_answers_in_lines(fake_server: Start) -> None:
    server = fake_server(**FAST)
    _, body = ask(server, "/api/chat")
    lines = [json.loads(line) for line in body.split(b"\n") if line]
    assert [line["done"] for line in lines] == [False] * 4 + [True]
    assert (lines[0]["message"]["content"], lines[-1]["eval_count"]) == ("w0 ", 4)


def test_a_reply_that_is_not_streamed_comes_whole_when_the_last_token_would(fake_server: Start) -> None:
    server = fake_server(ttft_ms=20, gap_ms=10, tokens=4)
    _, body = ask(server, stream=False)
    (truth,) = server.truth(1)
    assert json.loads(body)["usage"]["completion_tokens"] == 4
    assert truth["writes"][0][0] - truth["t_request_read"] >= 50e6


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_scripted_status_is_answered(fake_server: Start, status: int) -> None:
    server = fake_server(faults=[{"kind": "http", "status": status, "retry_after": 3}])
    got, body = ask(server)
    assert got == status
    assert str(status).encode() in body


def test_faults_hit_the_requests_that_are_named(fake_server: Start) -> None:
    server = fake_server(**FAST, faults=[{"kind": "http", "status": 500, "nth": [1, 3]}])
    assert [ask(server)[0] for _ in range(5)] == [200, 500, 200, 500, 200]


def test_a_cut_stream_lacks_its_end(fake_server: Start) -> None:
    body = raw(fake_server(**FAST, faults=[{"kind": "cut", "after": 2}]))
    assert b"w1 " in body
    assert b"w2 " not in body
    assert not body.endswith(b"0\r\n\r\n")


def test_a_reset_is_a_reset(fake_server: Start) -> None:
    with pytest.raises(ConnectionResetError):
        raw(fake_server(**FAST, faults=[{"kind": "reset"}]))


@pytest.mark.parametrize(("kind", "seen"), [("stall", b"w1 "), ("never", b""), ("no_end", b"[DONE]")])
def test_a_silent_server_holds_the_connection(fake_server: Start, kind: str, seen: bytes) -> None:
    server = fake_server(**FAST, faults=[{"kind": kind}])
    with socket.create_connection((server.host, server.port), timeout=60) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 15\r\n\r\n" + b'{"stream":true}')
        found = b""
        while select.select([sock], [], [], 0.3 if seen in found else 30)[0]:
            data = sock.recv(65536)
            assert data, "the server closed the connection"
            found += data
    assert seen in found
    assert not found.endswith(b"0\r\n\r\n")
    assert server.truth(1)[0]["aborted"]


def test_a_refused_port_refuses_whoever_comes_after(fake_server: Start) -> None:
    server = fake_server(**FAST, faults=[{"kind": "refuse", "nth": 1}])
    assert ask(server)[0] == 200
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(server)
    with pytest.raises(ConnectionRefusedError):
        ask(server)


def test_a_hang_up_ends_without_a_byte(fake_server: Start) -> None:
    assert raw(fake_server(faults=[{"kind": "hangup"}])) == b""


def test_a_full_machine_makes_the_next_request_wait(fake_server: Start) -> None:
    server = fake_server(batch=1, step_ms=5, tokens=4)
    threads = [threading.Thread(target=ask, args=(server,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = server.truth(2)
    ends = [w[0] for w in first["writes"] if w[3] == "token"]
    begins = [w[0] for w in second["writes"] if w[3] == "token"]
    assert begins[0] > ends[-1]
    assert begins[0] >= first["t_request_read"] + 5 * 5e6  # four steps for the first, then one of its own
    assert all(b - a >= 4e6 for a, b in zip(ends[:1], ends[-1:], strict=True))


def test_a_step_grows_with_the_requests_that_share_it(fake_server: Start) -> None:
    server = fake_server(batch=8, step_ms=2, per_request_ms=3, tokens=5)
    ask(server)
    (truth,) = server.truth(1)
    sent = [w[0] for w in truth["writes"] if w[3] == "token"]
    assert sent[-1] - truth["t_request_read"] >= 5 * 5e6


def test_prompts_that_begin_alike_are_cached_in_blocks(fake_server: Start) -> None:
    server = fake_server(**FAST, prefix_cache=True)
    ids = list(range(40))
    for prompt in (ids, ids, [*ids[:20], 7]):
        ask(server, "/v1/completions", prompt=prompt)
    hits = next(line for line in server.get("/metrics").split("\n") if "prefix_cache_hits_total{" in line)
    assert float(hits.split()[-1]) == 32 + 16


def test_pages_are_answered(fake_server: Start) -> None:
    server = fake_server(model="tiny")
    assert json.loads(server.get("/v1/models"))["data"][0]["id"] == "tiny"
    assert "vllm:num_requests_running" in server.get("/metrics")
    assert server.stats()["requests"] == 0


def test_health_is_bad_while_starting_and_a_missing_key_is_refused(fake_server: Start) -> None:
    server = fake_server(start_ms=60_000, api_key="k")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        server.get("/health")
    assert ask(server)[0] == 401


def test_a_unix_socket_and_ipv6_are_served(tmp_path: Any) -> None:
    with FakeServer(unix=str(tmp_path / "s"), tokens=1) as server:
        assert server.url == f"unix:{tmp_path / 's'}"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "s"))
            sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    with FakeServer(host="::1", **FAST) as server:
        assert ask(server)[0] == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_is_served_under_a_certificate_that_can_be_checked() -> None:
    with FakeServer(tls=True, **FAST) as server:
        context = ssl.create_default_context(cafile=server.cert)
        connection = http.client.HTTPSConnection(server.host, server.port, timeout=60, context=context)
        for size in (10, 100_000):
            connection.request("POST", "/v1/chat/completions", json.dumps({"stream": True, "pad": "x" * size}))
            assert connection.getresponse().read().endswith(b"[DONE]\n\n")
        connection.close()
        assert [t["tokens_sent"] for t in server.truth(2)] == [4, 4]
