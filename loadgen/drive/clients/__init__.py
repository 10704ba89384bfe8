"""Other people's clients as drivers, one small file each: what does *your* client add to the numbers?

``driver: openai`` sends the same requests on the same schedule and writes the same records as our own driver, but a
library's client moves the bytes and hands over events when its event loop gets round to it. So arrivals are stamped
in user space (``clock: user``), and what the client adds is in the numbers: that is the point.

A client is a module with ``open_client(job) -> Client``. To add one, add a file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec

from loadgen.drive.balance import make_balance
from loadgen.drive.clock import now_ns
from loadgen.drive.http import Head, MalformedReply
from loadgen.drive.job import Job
from loadgen.drive.outcome import Exchange
from loadgen.drive.prepare import Prepared
from loadgen.drive.reply import Reply
from loadgen.drive.said import NOT_MEANT
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


class Client(Protocol):
    """What a client module opens. ``path`` and ``fields`` are the backend's; events come as JSON objects."""

    def stream(self, path: str, fields: dict[str, Any], request_id: str) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        """(arrival in ns, event) until the reply ends; one event for a reply that is not streamed.

        Raises Refused or Broken.
        """

    async def close(self) -> None:
        """Gives connections back."""


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
        job = self.prepared.job
        request_id = self.prepared.request_id(exchange.send.session, exchange.send.turn)
        exchange.kernel = False
        async with self._throttle if self._throttle is not None else contextlib.nullcontext():
            exchange.t_send = exchange.last_read = now_ns()
        reply = exchange.reply = Reply(Head(200, 0, {}, False), self.prepared.backend, job.options.stream, 1 << 62)
        try:
            stream = self._clients[exchange.place].stream(self.prepared.backend.PATH, fields, request_id)
            async for at, event in stream:
                self._events += 1
                exchange.last_read = at
                reply.take_event(event, at)
            reply.complete = True
        except Refused as refused:
            exchange.reply = Reply(Head(refused.status, 0, {}, False), self.prepared.backend, False, 1 << 62)
            exchange.reply.body += refused.body.encode()
        except Broken as broken:
            exchange.failed, exchange.why = broken.status, str(broken)
        except (MalformedReply, *NOT_MEANT) as error:
            exchange.failed, exchange.why = "malformed", str(error)
        if not exchange.ended:
            self._end(exchange, exchange.last_read)

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
