"""Other people's clients as drivers, one small file each: what does *your* client add to the numbers?

``driver: openai`` sends the same requests on the same schedule and writes the same records as our own driver, but a
library's client moves the bytes and hands over events when its event loop gets round to it. So arrivals are stamped
in user space (``clock: user``), and what the client adds is in the numbers: that is the point. How a reply ended is not
left to it: the bytes are held against the limits of our own driver (``load.max_event_bytes``, the growth of gzip), and
what is wrong with them has the same status and the same words. One thing of theirs looks like the server's: httpcore
1.0, below httpx, may close an idle connection for its age (5 s) though a request has just been given it, where a turn
of its event loop takes seconds. That is a ``reset`` in a run that is INVALID, since its client was late.

A client is a module with ``open_client(job) -> Client``. To add one, add a file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Protocol

import msgspec

from loadgen.drive.balance import make_balance
from loadgen.drive.clock import now_ns
from loadgen.drive.http import Head
from loadgen.drive.job import Job
from loadgen.drive.outcome import Exchange
from loadgen.drive.prepare import Prepared
from loadgen.drive.reply import Reply
from loadgen.drive.understand import Backlog


class Refused(Exception):
    """The server answered with another status than 200; ``body`` is the start of what it said."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


class Broken(Exception):
    """No reply, or no more of it. ``status`` is the record's: connect_error, reset, timeout, truncated, malformed."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


Piece = Head | bytes | dict[str, Any]
"""What a client hands over of a reply: its head, bytes of its body, or an event that it has decoded already. Without a
head it is 200; one that is not streamed and is decoded already is one event."""
Heard = Callable[[int], None]
"""To be called with the time (ns) when bytes came that may be no event yet: the reply has not stalled."""


class Client(Protocol):
    """What a client module opens. ``path`` and ``fields`` are the backend's."""

    def stream(
        self, path: str, fields: dict[str, Any], request_id: str, heard: Heard
    ) -> AsyncGenerator[tuple[int, Piece]]:
        """(arrival in ns, piece) until the reply ends. Raises Refused, Broken or MalformedReply."""

    async def close(self) -> None:
        """Gives connections back."""


def head_of(status: int, fields: Mapping[str, str]) -> Head:
    """The head of a reply whose framing a client has taken off, but not its coding."""
    kept = {name: fields.get(name, "") for name in ("content-encoding", "content-type", "retry-after")}
    return Head(status, 0, {name.encode(): value.encode("latin-1", "replace") for name, value in kept.items()}, False)


def broken(http: Any, error: BaseException | None) -> Broken:
    """What an error of ``httpx`` or ``httpx2``, whichever ``http`` is, is called in a record."""
    why = str(error) or type(error).__name__
    if isinstance(error, (http.ConnectError, http.ConnectTimeout, http.ProxyError)):
        return Broken("connect_error", why)
    if isinstance(error, http.RemoteProtocolError) and "peer closed connection" in why:
        return Broken("truncated", "the connection was closed before the reply was complete")
    if isinstance(error, http.RemoteProtocolError) and "disconnected without" in why:
        return Broken("reset", "the server closed the connection without a reply")
    if isinstance(error, (http.NetworkError, http.TimeoutException)):
        return Broken("reset", f"the connection was cut: {why}")
    return Broken("malformed", why)


class _NoPools:
    """The client keeps its connections to itself."""

    kernel_clock = False
    opened = 0


class ClientTraffic:
    """Takes the place of `traffic.Traffic`: the same calls, with a client's tasks behind them.

    The event loop runs only inside `step`, so the worker's schedule and its own loop stay what they are.
    """

    def __init__(
        self,
        prepared: Prepared,
        backlog: Backlog,
        ended: Callable[[Exchange, int], None],
        open_client: Callable[[Job], Client],
    ) -> None:
        self.prepared = prepared
        self.backlog = backlog
        self.ended = ended
        self.pools = _NoPools()
        self.active: set[Exchange] = set()
        self.loop_ns = 0
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}
        self._events = 0
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self.balance = make_balance(prepared.job)
        self._clients = [open_client(msgspec.structs.replace(prepared.job, endpoint=url)) for url in prepared.job.urls]
        self._throttle = _throttle(prepared.job)

    def also_watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Calls ``ready()`` when another descriptor can be read: the timer, the parent's messages."""
        self._loop.add_reader(fd, self._woken, ready)

    def forget(self, fd: int) -> None:
        """Watches a descriptor no longer."""
        self._loop.remove_reader(fd)

    def warm(self, connections: int) -> None:
        """Nothing: a library's client opens connections when it wants to, and that is part of what it adds."""

    def tidy(self, now: int) -> None:
        """Nothing: the client looks after its connections."""

    def step(self, wait: float) -> int:
        """Runs the client's tasks for at most ``wait`` seconds; how many events they got."""
        began, self._events = now_ns(), 0
        if wait > 0:
            handle = self._loop.call_later(wait, self._loop.stop)
            self._loop.run_forever()
            handle.cancel()
        else:
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
        self.loop_ns = max(self.loop_ns, now_ns() - began - int(wait * 1e9))
        return self._events

    def dispatch(self, exchange: Exchange, data: bytes, now: int) -> None:
        """Hands a request to the client."""
        self.active.add(exchange)
        exchange.t_due = now
        if self.balance is not None:
            exchange.place = self.balance.choose(exchange.send, now)
        fields = msgspec.json.decode(data.partition(b"\r\n\r\n")[2])
        self._tasks[exchange] = self._loop.create_task(self._carry(exchange, fields))

    def fail(self, exchange: Exchange, status: str, why: str) -> None:
        """Ends an exchange with a status that the driver saw; its task is cancelled."""
        exchange.failed, exchange.why = status, why
        self._tasks[exchange].cancel()
        self._end(exchange, now_ns())

    def broken(self, exchange: Exchange, why: str) -> None:
        """Never called: the client has decoded what it hands over."""
        self.fail(exchange, "malformed", why)

    def over(self, exchange: Exchange, at: int) -> None:
        """Never called: the client says when a reply is over."""
        self._end(exchange, at)

    def close(self) -> None:
        """Ends the client and its event loop."""
        if self._loop.is_closed():
            return
        self._closing = True
        self.step(0.0)  # takes up the stops that were asked for: they would stop the tidying in its middle
        self._loop.run_until_complete(self._finish())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _finish(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        for client in self._clients:
            with contextlib.suppress(Exception):
                await client.close()

    async def _carry(self, exchange: Exchange, fields: dict[str, Any]) -> None:
        request_id = self.prepared.request_id(exchange.send.session, exchange.send.turn)
        exchange.kernel = False
        async with self._throttle if self._throttle is not None else contextlib.nullcontext():
            exchange.t_send = exchange.last_read = now_ns()
        stream = self._clients[exchange.place].stream(
            self.prepared.backend.PATH, fields, request_id, lambda at: self._heard(exchange, at)
        )
        try:
            await self._take(exchange, stream)
        except Refused as refused:
            exchange.reply = self._reply(Head(refused.status, 0, {}, False))
            exchange.reply.body += refused.body.encode()
        except Broken as error:
            exchange.failed, exchange.why = error.status, str(error)
        except Exception as error:  # noqa: BLE001  whatever a library raises: the request is over, and must not hang
            exchange.failed, exchange.why = "malformed", str(error) or type(error).__name__
        if not exchange.ended:
            self._end(exchange, exchange.last_read)

    async def _take(self, exchange: Exchange, stream: AsyncGenerator[tuple[int, Piece]]) -> None:
        """Takes a reply to its end. Raises what the client raises, and MalformedReply."""
        reply = exchange.reply = self._reply(Head(200, 0, {}, False))
        async with contextlib.aclosing(stream):
            async for at, piece in stream:
                self._events += 1
                exchange.last_read = at
                if isinstance(piece, Head):
                    reply = exchange.reply = self._reply(piece)
                elif isinstance(piece, bytes):
                    reply.feed(piece, at)
                else:
                    reply.take_event(piece, at)
        reply.end_of_input()

    def _reply(self, head: Head) -> Reply:
        job = self.prepared.job
        return Reply(head, self.prepared.backend, job.options.stream, job.shape.max_event_bytes)

    def _heard(self, exchange: Exchange, at: int) -> None:
        exchange.last_read = at

    def _end(self, exchange: Exchange, at: int) -> None:
        exchange.t_end = at
        exchange.ended = True
        self.active.discard(exchange)
        self._tasks.pop(exchange, None)
        if self.balance is not None:
            self.balance.ended(exchange.place, exchange.failed, at)
        self.ended(exchange, at)
        self.backlog.add(exchange)
        if not self._closing:
            self._loop.call_soon(self._loop.stop)  # a slot is free: the schedule may have something to send

    def _woken(self, ready: Callable[[], None]) -> None:
        ready()
        self._loop.stop()


def _throttle(job: Job) -> Any:
    """The courtesy cap ``max_rps`` by asyncio-throttle, None without one. It lets a whole second's worth out at once,
    so it is no arrival process and never used as one."""
    if job.shape.max_rps is None:
        return None
    from asyncio_throttle.throttler import Throttler

    share = job.shape.max_rps / job.workers
    return Throttler(rate_limit=max(int(share), 1), period=max(1 / share, 1.0))
