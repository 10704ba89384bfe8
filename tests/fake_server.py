"""A scripted server that paces its replies exactly and logs what it really did: the truth of the accuracy tests.

    python tests/fake_server.py [--port 0] [--script FILE-or-JSON] [--truth FILE]

prints its port as its first line. The script is described in `fake_script.py`; the path of a request chooses the
dialect. One thread, one epoll; every stream has an absolute schedule from the moment its request was read, so a late
write delays no other. Truth: one JSON line a request when its reply has ended (however it ended), times CLOCK_MONOTONIC
in ns::

    {id, index, path, body, fault, t_accept, t_request_read, in_tok, ask_tok,
     writes: [[t_before, t_after, n_events, kind], ...], tokens_sent, end, aborted}

``t_before`` and ``t_after`` enclose the call of send; kind is head, role, token, part (not yet a whole event), finish,
usage, done, end, comment, error, whole, page. ``GET /fake/stats`` answers the server's own lateness and CPU time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import heapq
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_pages import Book, answer, read_ask
from fake_plan import Plan, make_plan
from fake_script import Script, read_script
from fake_wire import Ask

_CACHED_PLANS = 512


class Connection:
    """One accepted socket, the request it is answering (``record`` and ``plan``), and what could not be sent yet."""

    def __init__(self, sock: socket.socket, at: int) -> None:
        self.sock = sock
        self.t_accept = at
        self.inbox = bytearray()
        self.backlog = bytearray()
        self.record: dict[str, Any] | None = None
        self.plan: Plan | None = None
        self.next = 0
        self.closing = False
        self.turn = 0


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

    def __init__(self, script: Script, listener: socket.socket, truth: Path | None) -> None:
        self.script = script
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
            while self.due and self.due[0][0] <= now:
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
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.conns[sock.fileno()] = Connection(sock, time.monotonic_ns())
            self.epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)

    def _ready(self, conn: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._drain(conn)
        if not mask & ~select.EPOLLOUT:
            return
        try:
            data = conn.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(conn)
            return
        conn.inbox += data
        if conn.record is None:
            self._request(conn)

    def _request(self, conn: Connection) -> None:
        """Takes a whole request off the inbox, if there is one, and starts to answer it."""
        end = conn.inbox.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = bytes(conn.inbox[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = end + 4 + int(headers.get("content-length", "0"))
        if len(conn.inbox) < size:
            return
        now = time.monotonic_ns()
        body = bytes(conn.inbox[end + 4 : size])
        del conn.inbox[:size]
        method, path, *_ = lines[0].split(" ")
        conn.turn += 1
        conn.next = 0
        page = answer(self.book, method, path, headers, now)
        if page is not None:
            conn.record = {"writes": [], "t_request_read": now, "page": True}
            self._play_from(conn, Plan(page, "keep", False), now)
            return
        self._generate(conn, path, headers, body, now)

    def _generate(self, conn: Connection, path: str, headers: dict[str, str], body: bytes, now: int) -> None:
        ask, decoded = read_ask(self.book, path, body)
        index = self.book.arrived(ask)
        fault = self.script.fault_of(index)
        conn.record = {
            "id": headers.get("x-request-id", str(index)),
            "index": index,
            "path": path,
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
        self._play_from(conn, self._plan(ask, fault), now)
        if fault and fault["kind"] == "refuse" and self.listener is not None:
            self.epoll.unregister(self.listener)
            self.listener.close()
            self.listener = None

    def _plan(self, ask: Ask, fault: dict[str, Any] | None) -> Plan:
        key = (ask, json.dumps(fault))
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _CACHED_PLANS:
                self._plans.clear()
            plan = self._plans[key] = make_plan(self.script, ask, fault)
        return plan

    # -- playing a plan -------------------------------------------------------------------------------------------

    def _play_from(self, conn: Connection, plan: Plan, now: int) -> None:
        conn.plan = plan
        if not plan.writes:
            if plan.end != "hang":
                self._finish(conn)
        elif self.script.batch and plan.stepped:
            self._step(conn, -1, now)
            self.capacity.waiting.append(conn)
            if not self.capacity.busy:
                self._next_step(now)
        else:
            self._paced(conn, conn.turn, now)

    def _paced(self, conn: Connection, turn: int, start: int) -> None:
        """Sends every write that is due and comes back for the next; ``turn`` guards against a connection's reuse."""
        plan = conn.plan
        assert plan is not None
        while conn.record is not None and conn.turn == turn:
            due = start + plan.writes[conn.next].due
            if due > time.monotonic_ns():
                self.at(due, lambda _: self._paced(conn, turn, start))
                return
            if not self._write(conn, due):
                return

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
        if not self._send(conn, write.data):
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

    def _send(self, conn: Connection, data: bytes) -> bool:
        if conn.backlog:
            conn.backlog += data
            return True
        try:
            sent = conn.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(conn)
            return False
        if sent < len(data):
            conn.backlog += data[sent:]
            self.epoll.modify(conn.sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT)
        return True

    def _drain(self, conn: Connection) -> None:
        try:
            sent = conn.sock.send(memoryview(conn.backlog)[: 1 << 20])
        except BlockingIOError:
            return
        except OSError:
            self._close(conn)
            return
        del conn.backlog[:sent]
        if not conn.backlog:
            self.epoll.modify(conn.sock, select.EPOLLIN | select.EPOLLRDHUP)
            if conn.closing:
                self._close(conn)

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self, conn: Connection) -> None:
        """The reply is out: keeps, closes or resets the connection."""
        plan, record = conn.plan, conn.record
        assert plan is not None
        assert record is not None
        self._log(record, plan.end)
        conn.record = conn.plan = None
        if plan.end == "reset":
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close(conn)
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
                self._request(conn)

    def _close(self, conn: Connection) -> None:
        if self.conns.pop(conn.sock.fileno(), None) is None:
            return
        if conn.record is not None:
            conn.record["aborted"] = True
            self._log(conn.record, conn.record.get("end") or "aborted")
            conn.record = None
            self.capacity.drop(conn)
        self.epoll.unregister(conn.sock)
        conn.sock.close()

    def _log(self, record: dict[str, Any], end: str) -> None:
        if record.get("page"):
            return
        record["end"] = end
        self.book.ended(record)
        self._ended.append(record)


def listen(host: str, port: int, unix: str | None) -> socket.socket:
    """A listening socket; ``unix`` is a path that replaces host and port."""
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if not unix:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(unix or (host, port))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


def main() -> None:
    """Reads the arguments, prints the port, serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="a scripted, paced server that logs the truth")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix", help="path of a Unix socket to listen on instead")
    parser.add_argument("--script", default="{}", help="a file of JSON, or JSON itself")
    parser.add_argument("--truth", type=Path, help="file to append one line a request to")
    options = parser.parse_args()
    text = options.script if options.script.lstrip().startswith("{") else Path(options.script).read_text()
    script = read_script(json.loads(text))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: wake within 1 ns of the time asked for, not 50 µs
    listener = listen(options.host, options.port, options.unix)
    server = Server(script, listener, options.truth)
    wakeup, stop = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "stopping", True))
    signal.signal(signal.SIGINT, lambda *_: setattr(server, "stopping", True))
    stop.setblocking(False)
    signal.set_wakeup_fd(stop.fileno())
    server.epoll.register(wakeup, select.EPOLLIN)
    print(0 if options.unix else listener.getsockname()[1], flush=True)
    gc.disable()  # a collection would stand in the way of a write that is due
    server.run()
    os._exit(0)


if __name__ == "__main__":
    main()
