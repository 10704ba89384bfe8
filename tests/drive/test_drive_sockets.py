"""TCP, TLS, Unix and IPv6 sockets: connections opened ahead, verified, kept and given up."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from drive_certificate import needs_openssl, tls_of
from drive_driver import drive
from drive_servers import END, FINISH, LAST, STREAM, Peer, RawServer, answering, event, reply

from loadgen.arrival import Arrival


@needs_openssl
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_verified_stamped_by_the_kernel_and_its_connections_are_kept(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, newest: ssl.TLSVersion
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pieces = (STREAM, event(" a"), event(" b") + FINISH, END)
    with RawServer(answering(*pieces, gap=0.01), tls=tls_of(certificate, newest)) as server:
        driven = drive(server.url, {"concurrency": 2, "requests": 8}, connections=2)
    assert driven.statuses == {"ok": 8}
    assert {(record.clock, len(record.chunk_us)) for record in driven.records} == {("kernel", 2)}
    assert driven.loop.traffic.pools.opened == 2  # the tickets of TLS 1.3 come on idle connections, and end none
    # Where the client was too busy to read the first before the second came, both have one stamp.
    assert any(record.chunk_us[1] - record.chunk_us[0] > 1000 for record in driven.records)


@needs_openssl
def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with (
        RawServer(answering(reply()), tls=tls_of(certificate)) as server,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        drive(server.url, {"concurrency": 1, "requests": 1})


@needs_openssl
def test_a_certificate_for_another_name_is_refused(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RawServer(answering(reply()), tls=tls_of(certificate)) as server:
        url = server.url.replace("localhost", "127.0.0.2")
        with pytest.raises(OSError, match=r"(?i)certificate|refused"):
            drive(url, {"concurrency": 1, "requests": 1})


@needs_openssl
def test_an_end_that_tls_announces_is_an_end_even_if_the_connection_stays(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def script(peer: Peer) -> None:
        peer.request()
        body = b"".join(chunk.split(b"\r\n")[1] for chunk in (event(" a"), FINISH))
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        assert isinstance(peer.sock, ssl.SSLSocket)
        with contextlib.suppress(OSError):
            peer.sock.unwrap()  # close_notify; then it waits for ours

    with RawServer(script, tls=tls_of(certificate)) as server:
        driven = drive(server.url, {"concurrency": 1, "requests": 1, "stall_timeout_s": 1.0})
    assert (driven.only.status, driven.only.chunk_us != []) == ("ok", True)


@needs_openssl
def test_bytes_that_are_no_tls_end_the_request_and_not_the_run(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(STREAM + event(" a"))
        time.sleep(0.05)
        with socket.socket(fileno=peer.sock.detach()) as below:
            below.sendall(b"this is no TLS record" * 10)
            time.sleep(0.05)

    with RawServer(script, tls=tls_of(certificate)) as server:
        driven = drive(server.url, {"concurrency": 1, "requests": 2})
    assert driven.statuses == {"reset": 2}
    assert all("TLS" in (record.err or "") for record in driven.records)
    assert [len(record.chunk_us) for record in driven.records] == [1, 1]


@needs_openssl
def test_a_long_request_goes_through_tls_whole(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    prompts = tmp_path / "long.jsonl"
    prompts.write_text(json.dumps({"prompt": "long " * 1_000_000}))
    bodies = []

    def script(peer: Peer) -> None:
        while True:
            time.sleep(0.05)
            bodies.append(peer.request()[1])
            peer.send(reply(1))

    with RawServer(script, tls=tls_of(certificate)) as server:
        fields = {"workload": "jsonl", "settings": {"path": str(prompts)}}
        driven = drive(server.url, {"concurrency": 1, "requests": 2}, **fields)
    assert driven.statuses == {"ok": 2}
    assert [json.loads(body)["messages"][0]["content"] for body in bodies] == ["long " * 1_000_000] * 2


def silent(peer: Peer) -> None:
    peer.until_gone()


def test_a_handshake_that_nobody_answers_ends_by_the_connect_timeout() -> None:
    with RawServer(silent) as server:
        shape = {"concurrency": 2, "requests": 2, "connect_timeout_s": 0.2}
        driven = drive(server.url.replace("http:", "https:"), shape, connections=2)
    assert driven.statuses == {"connect_error": 2}
    assert "load.connect_timeout_s = 0.2" in (driven.records[0].err or "")
    assert not driven.loop.traffic.pools.connections


def test_connecting_is_measured_apart_and_once_for_each_connection() -> None:
    with RawServer(answering(reply(1))) as server:
        driven = drive(server.url, {"concurrency": 2, "requests": 6}, connections=2)
    connected = [record for record in driven.records if record.conn_s is not None]
    assert (len(connected), driven.loop.traffic.pools.opened) == (2, 2)


def test_a_request_that_waits_for_its_connection_is_sent_when_that_is_there() -> None:
    """The time in which it connects is a wait of the schedule's, and none of the TTFT."""
    with RawServer(answering(LAST)) as server:  # which closes after each reply
        driven = drive(server.url, {"concurrency": 1, "requests": 8})
    waited = [record for record in driven.records[1:] if record.conn_s is not None]
    assert len(waited) == 7
    assert all((one.t_send or 0) - one.t_sched >= (one.conn_s or 0) - 1e-8 for one in waited)


def test_a_connection_that_the_server_closed_while_it_was_idle_costs_no_request() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(reply(1))

    arrival = Arrival(kind="constant", rate_rps=4.0)
    with RawServer(script) as server:
        driven = drive(server.url, {"arrival": arrival, "requests": 4})
    assert driven.statuses == {"ok": 4}
    assert driven.loop.traffic.pools.opened == 4


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadgen.drive.pool.IDLE_LIMIT_NS", 500_000_000)
    arrival = Arrival(kind="timestamps", timestamps=(0.0, 0.02, 1.2))
    with RawServer(answering(reply(1))) as server:
        driven = drive(server.url, {"arrival": arrival})
    assert driven.statuses == {"ok": 3}
    assert driven.loop.traffic.pools.opened == 2


def test_a_unix_socket_is_driven_with_stamps_of_our_own(tmp_path: Path) -> None:
    with RawServer(answering(reply(2)), unix=str(tmp_path / "s")) as server:
        driven = drive(server.url, {"concurrency": 2, "requests": 5}, connections=2)
    assert driven.statuses == {"ok": 5}
    assert {record.clock for record in driven.records} == {"user"}
    assert not driven.loop.traffic.pools.kernel_clock


def test_a_unix_socket_that_is_not_there_or_takes_no_more_is_a_connect_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        drive(f"unix:{tmp_path}/none", {"concurrency": 1, "requests": 1})
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(0)
        for _ in range(9):  # nobody accepts: the queue is full
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect_ex(path)
        with pytest.raises(BlockingIOError):
            drive(f"unix:{path}", {"concurrency": 1, "requests": 1})


def test_ipv6_is_driven_like_ipv4() -> None:
    try:
        server = RawServer(answering(reply(2)), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        driven = drive(server.url, {"concurrency": 1, "requests": 2})
    assert driven.statuses == {"ok": 2}
    assert {record.clock for record in driven.records} == {"kernel"}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".invalid"])
def test_a_name_that_has_no_address_is_an_oserror(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: Any, **__: Any) -> Any:
        name.encode("idna")
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OSError, match=r"not known|cannot be a host name"):
        drive(f"http://{host}:1", {"concurrency": 1, "requests": 1})


def test_of_a_names_addresses_the_one_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(answering(reply(1))) as server:
        port = int(server.url.rsplit(":", 1)[1])
        found = [(socket.AF_INET, 1, 6, "", ("127.0.0.9", 1)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        driven = drive(f"http://two.example:{port}", {"concurrency": 1, "requests": 1})
    assert driven.only.status == "ok"
