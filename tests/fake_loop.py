"""The fake server's loop: one thread, one epoll, and an absolute schedule for every stream.

In: a `Script` and a listening socket. Out: replies, and the truth: when each write was made.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_connection import Connection, Request
from fake_pages import Book, answer, read_ask
from fake_plan import Plan, make_plan, make_reusable
from fake_script import Script
from fake_wire import Ask

_CACHED_PLANS = 512
_TURN = 16
"""Writes that a stream may make in a row before the others have theirs."""
_LOOK = 64
"""Actions between two looks at the sockets."""


class Capacity:
    """A machine that runs at most ``batch`` requests and gives each one event a step."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.waiting: deque[Connection] = deque()
        self.running: list[tuple[Connection, int]] = []
        self.busy = False

    def begin(self, now: int) -> int | None:
        """Lets requests join and starts a step; when it ends (ns), None if there is nothing to do."""
        joined = 0
        while self.waiting and len(self.running) < self.script.batch:
            self.running.append((self.waiting.popleft(), 0))
            joined += 1
        self.busy = bool(self.running)
        if not self.busy:
            return None
        ms = self.script.step_ms + self.script.per_request_ms * len(self.running) + self.script.prefill_ms * joined
        return now + int(ms * 1e6)

    def drop(self, conn: Connection) -> None:
        """Forgets a connection that was closed."""
        self.running = [(c, k) for c, k in self.running if c is not conn]
        if conn in self.waiting:
            self.waiting.remove(conn)


class Server:
    """The loop: due writes first, then what the sockets say."""

    def __init__(
        self, script: Script, listener: socket.socket, truth: Path | None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self.tls = tls
        self.book = Book(script, time.monotonic_ns())
        self.listener: socket.socket | None = listener
        self.epoll = select.epoll()
        self.epoll.register(listener, select.EPOLLIN)
        self.conns: dict[int, Connection] = {}
        self.due: list[tuple[int, int, Callable[[int], None]]] = []
        self.capacity = Capacity(script)
        self.stopping = False
        self._order = 0
        self._plans: dict[tuple[Ask, str], Plan] = {}
        self._truth = truth.open("a") if truth else None
        self._ended: list[dict[str, Any]] = []

    def at(self, due: int, action: Callable[[int], None]) -> None:
        """Calls ``action(due)`` at ``due`` (monotonic ns)."""
        self._order += 1
        heapq.heappush(self.due, (due, self._order, action))

    def run(self) -> None:
        """Serves until told to stop."""
        while not self.stopping:
            now = time.monotonic_ns()
            wait = (self.due[0][0] - now) / 1e9 if self.due else 1.0
            if self._ended and wait > 0.001:
                self.flush()
                continue
            if wait > 0:  # epoll's own timeout counts whole milliseconds; select on the epoll counts microseconds
                select.select([self.epoll], [], [], wait)
            for fd, mask in self.epoll.poll(0):
                if self.listener is not None and fd == self.listener.fileno():
                    self._accept()
                elif fd in self.conns:
                    self._ready(self.conns[fd], mask)
            now = time.monotonic_ns()
            for _ in range(_LOOK):
                if not self.due or self.due[0][0] > now:
                    break
                due, _, action = heapq.heappop(self.due)
                action(due)
        for conn in list(self.conns.values()):
            self._close(conn)
        self.flush()

    def flush(self) -> None:
        """Writes the truth of the requests that have ended."""
        if self._truth is not None:
            self._truth.writelines(json.dumps(record) + "\n" for record in self._ended)
            self._truth.flush()
        self._ended.clear()

    def _accept(self) -> None:
        while self.listener is not None:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            conn = Connection(sock, self.tls, self.epoll, time.monotonic_ns())
            self.conns[conn.sock.fileno()] = conn

    def _ready(self, conn: Connection, mask: int) -> None:
        if (mask & select.EPOLLOUT and not conn.drain()) or (mask & ~select.EPOLLOUT and not conn.read()):
            self._close(conn)
        elif conn.record is None and conn.inbox and not conn.closing:
            self._answer(conn)

    def _answer(self, conn: Connection) -> None:
        """Takes the next request of a connection, if it is whole, and starts to answer it."""
        request = conn.take_request()
        if request is None:
            return
        now = time.monotonic_ns()
        page = answer(self.book, request.method, request.path, request.headers, now)
        if page is None:
            self._generate(conn, request, now)
        else:
            conn.record = {"writes": [], "page": True}
            self._play(conn, Plan(page, "keep", False), now)

    def _generate(self, conn: Connection, request: Request, now: int) -> None:
        ask, decoded = read_ask(self.book, request.path, request.body)
        index = self.book.arrived(ask)
        fault = self.script.fault_of(index)
        conn.record = {
            "id": request.headers.get("x-request-id", str(index)),
            "index": index,
            "path": request.path,
            "body": decoded if self.script.log_body else None,
            "fault": fault["kind"] if fault else None,
            "t_accept": conn.t_accept,
            "t_request_read": now,
            "in_tok": ask.in_tok,
            "ask_tok": ask.tokens,
            "writes": [],
            "tokens_sent": 0,
            "end": None,
            "aborted": False,
        }
        if fault and fault["kind"] == "refuse" and self.listener is not None:
            self.epoll.unregister(self.listener)
            self.listener.close()
            self.listener = None
        self._play(conn, self._plan(ask, fault), now)

    def _plan(self, ask: Ask, fault: dict[str, Any] | None) -> Plan:
        if self.script.gzip or self.script.split_bytes:  # the counts cannot be put in afterwards
            return make_plan(self.script, ask, fault)
        key = (ask._replace(in_tok=0, cached=0), json.dumps(fault))
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _CACHED_PLANS:
                self._plans.clear()
            plan = self._plans[key] = make_reusable(self.script, ask, fault)
        return plan.with_counts(ask) if plan.marked else plan

    # -- playing a plan -------------------------------------------------------------------------------------------

    def _play(self, conn: Connection, plan: Plan, now: int) -> None:
        conn.plan = plan
        if not plan.writes:
            if plan.end != "hang":
                self._finish(conn)
        elif self.script.batch and plan.stepped:
            if self._step(conn, -1, now):
                self.capacity.waiting.append(conn)
                if not self.capacity.busy:
                    self._next_step(now)
        else:
            self._paced(conn, conn.turn, now)

    def _paced(self, conn: Connection, turn: int, start: int) -> None:
        """Sends what is due, a few writes at most, and comes back for the rest."""
        if conn.turn != turn or conn.record is None:
            return
        plan = conn.plan
        assert plan is not None
        for _ in range(_TURN):
            write = plan.writes[conn.next]
            if start + write.due > time.monotonic_ns():
                break
            if not self._write(conn, start + write.due):
                return
            if 0 <= write.step < plan.writes[conn.next].step:
                self.book.stepped(self.book.running)
                start += int(self.script.gap_per_running_ms * self.book.running * 1e6)
        self.at(start + plan.writes[conn.next].due, lambda _: self._paced(conn, turn, start))

    def _step(self, conn: Connection, step: int, due: int) -> bool:
        """Sends what belongs to steps up to this one. False when the reply has ended."""
        plan, turn = conn.plan, conn.turn
        assert plan is not None
        while conn.turn == turn and conn.record is not None and plan.writes[conn.next].step <= step:
            if not self._write(conn, due):
                return False
        return conn.record is not None and conn.turn == turn

    def _next_step(self, now: int) -> None:
        end = self.capacity.begin(now)
        if end is not None:
            self.book.stepped(len(self.capacity.running))
            self.at(end, self._step_ends)

    def _step_ends(self, due: int) -> None:
        running, self.capacity.running = self.capacity.running, []
        going = [(conn, step + 1) for conn, step in running if self._step(conn, step, due)]
        self.capacity.running = going + self.capacity.running
        self._next_step(due)

    def _write(self, conn: Connection, due: int) -> bool:
        """Sends the next write of the plan and logs it. False if that was the last, or the client is gone."""
        plan, record = conn.plan, conn.record
        assert plan is not None
        assert record is not None
        write = plan.writes[conn.next]
        before = time.monotonic_ns()
        if not conn.send(write.data):
            self._close(conn)
            return False
        record["writes"].append([before, time.monotonic_ns(), write.events, write.kind])
        if write.tokens:
            record["tokens_sent"] += write.tokens
            self.book.late(before - due)
        conn.next += 1
        if conn.next < len(plan.writes):
            return True
        if plan.end == "hang":
            record["end"] = "hang"
        else:
            self._finish(conn)
        return False

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self, conn: Connection) -> None:
        """The reply is out: keeps, closes or resets the connection."""
        plan, record = conn.plan, conn.record
        assert plan is not None
        assert record is not None
        self._log(record, plan.end)
        conn.record = conn.plan = None
        if plan.end == "reset":
            self._close(conn, reset=True)
        elif plan.end == "close":
            conn.closing = True
            if not conn.backlog:
                self._close(conn)
        else:
            if self.script.idle_close_ms:
                turn = conn.turn
                later = time.monotonic_ns() + int(self.script.idle_close_ms * 1e6)
                self.at(later, lambda _: self._close(conn) if conn.turn == turn and conn.record is None else None)
            if conn.inbox:
                self._answer(conn)

    def _close(self, conn: Connection, reset: bool = False) -> None:
        if self.conns.pop(conn.sock.fileno(), None) is None:
            return
        if conn.record is not None:
            conn.record["aborted"] = True
            self._log(conn.record, conn.record.get("end") or "aborted")
            conn.record = None
            self.capacity.drop(conn)
        conn.close(reset)

    def _log(self, record: dict[str, Any], end: str) -> None:
        if record.get("page"):
            return
        record["end"] = end
        self.book.ended(record)
        self._ended.append(record)
