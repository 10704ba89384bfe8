"""One request outside of any load, over the same sockets as the load: what it reaches, the load will reach.

In: an endpoint and the bytes of a request. Out: the whole reply, whatever its status. Nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadgen.drive.clock import now_ns
from loadgen.drive.http import Endpoint, parse_head
from loadgen.drive.poll import READ, WRITE, make_poll
from loadgen.drive.pool import Pool
from loadgen.drive.reply import Reply
from loadgen.drive.sockets import LARGE_READ, Connection

_MAX_BODY = 10 << 20
_LOOK_S = 0.2
"""How often it is asked whether anybody still wants the reply."""


def never() -> bool:
    """Somebody waits for the reply, however long it takes."""
    return False


def ask_once(
    endpoint: Endpoint,
    data: bytes,
    backend: Any,
    connect_timeout_s: float,
    timeout_s: float,
    cancelled: Callable[[], bool] = never,
) -> Reply:
    """Sends a request on a connection of its own and reads the reply, which is not taken for a stream.

    Raises OSError when no connection is to be had, when it is cut, (TimeoutError) when ``timeout_s`` is over, and
    (InterruptedError) when ``cancelled()`` is true; MalformedReply for bytes that are no HTTP reply.
    """
    poll = make_poll()
    pool = Pool(endpoint, connect_timeout_s, poll)
    try:
        connection = _connected(pool, connect_timeout_s, cancelled)
        poll.modify(connection.fd, READ | WRITE)
        connection.send(data)
        return _reply(connection, poll, backend, timeout_s, cancelled)
    finally:
        pool.close_all()
        poll.close()


def _connected(pool: Pool, timeout_s: float, cancelled: Callable[[], bool]) -> Connection:
    pool.open()
    (connection,) = pool.opening
    what = f"no connection within {timeout_s:g} s"
    _until(pool.poll, timeout_s, lambda: pool.advance(connection), what, cancelled)
    return connection


def _reply(connection: Connection, poll: Any, backend: Any, timeout_s: float, cancelled: Callable[[], bool]) -> Reply:
    head = b""
    replies: list[Reply] = []

    def read() -> bool:
        nonlocal head
        if connection.sending:
            connection.go_on()
        if not connection.sending:
            poll.modify(connection.fd, READ)
        try:
            data = connection.sock.recv(LARGE_READ)
        except BlockingIOError:
            return False
        ended = not data
        if connection.tls is not None and data:
            data = connection.decrypt(data)
            ended = connection.finished
        if not replies and data:
            head += data
            parsed = parse_head(head)
            if parsed is not None:
                replies.append(Reply(parsed, backend, False, _MAX_BODY))
                data, head = head[parsed.size :], b""
        if replies and data:
            replies[0].feed(data, 0)
        if ended and replies:
            replies[0].end_of_input()
        if ended and not (replies and replies[0].complete):
            raise ConnectionResetError("the server closed the connection before its reply was complete")
        return bool(replies) and replies[0].complete

    _until(poll, timeout_s, read, f"no whole reply within {timeout_s:g} s", cancelled)
    return replies[0]


def _until(poll: Any, timeout_s: float, step: Callable[[], bool], what: str, cancelled: Callable[[], bool]) -> None:
    """Calls ``step`` whenever the connection is ready, until it is done. Raises TimeoutError and InterruptedError."""
    limit = now_ns() + int(timeout_s * 1e9)
    while (left := limit - now_ns()) > 0:
        if poll.poll(min(left / 1e9, _LOOK_S)) and step():
            return
        if cancelled():
            raise InterruptedError("interrupted")
    raise TimeoutError(what)
