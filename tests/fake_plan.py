"""From a script and a request to the writes of the reply: what goes out, when, and what it holds. Pure.

Events are laid out first (role, tokens, finish, usage, done), a fault then changes them, and at last they are given
times, put together into writes, compressed, framed and cut. The server only plays the result.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any, NamedTuple

from fake_native import dialect_of
from fake_script import Script
from fake_wire import Ask, Dialect, frame

_MS = 1_000_000
_IN, _CACHED = 734_000_000, 612_000_000
_MARKS = re.compile(rb"734\d{6}|612000000|122000000")
"""Stand for the prompt's counts in a plan that is used again: in_tok (plus up to 999999), cached, in_tok - cached."""
_BAD = "\uf8ff"
"""Stands for the bytes that are not UTF-8 until the event has been encoded."""


class Event(NamedTuple):
    """One event. ``step`` is the token event that it goes with (-1: at once, before the first token)."""

    kind: str
    data: bytes
    step: int
    tokens: int = 0


class Write(NamedTuple):
    """One send. ``due`` is ns after the request was read; ``step`` replaces it under a capacity model."""

    due: int
    step: int
    data: bytes
    events: int
    kind: str
    tokens: int


class Plan(NamedTuple):
    """The whole reply. ``end`` says what becomes of the connection: keep, close, reset, hang (nothing more comes)."""

    writes: tuple[Write, ...]
    end: str
    stepped: bool = True
    marked: tuple[int, ...] = ()

    def with_counts(self, ask: Ask) -> Plan:
        """A plan of `make_reusable` with the prompt's counts of a request, padded so that no length changes."""

        def count(mark: re.Match[bytes]) -> bytes:
            value = int(mark[0])
            if value >= _IN:
                return b"%9d" % (value - _IN + ask.in_tok)
            return b"%9d" % (ask.cached if value == _CACHED else ask.in_tok - ask.cached)

        writes = list(self.writes)
        for i in self.marked:
            writes[i] = writes[i]._replace(data=_MARKS.sub(count, writes[i].data))
        return self._replace(writes=tuple(writes))


def make_reusable(script: Script, ask: Ask, fault: dict[str, Any] | None) -> Plan:
    """The plan of all requests that differ from this one in the prompt's counts alone; see `Plan.with_counts`.

    Laying out a reply takes a while, and a server that is doing it is late for its other streams.
    """
    plan = make_plan(script, ask._replace(in_tok=_IN, cached=_CACHED), fault)
    return plan._replace(marked=tuple(i for i, w in enumerate(plan.writes) if _MARKS.search(w.data)))


def make_plan(script: Script, ask: Ask, fault: dict[str, Any] | None) -> Plan:
    """The reply to a request, with its fault if it has one."""
    kind = fault["kind"] if fault else ""
    if kind in ("never", "hangup", "refuse"):
        return Plan((), {"never": "hang", "hangup": "close", "refuse": "reset"}[kind], False)
    if fault and kind == "http":
        return _page(script, fault)
    dialect = dialect_of(script, ask)
    if fault and kind == "gzip_bomb":
        return _bomb(script, dialect, ask, fault)
    if not ask.stream:
        return _whole(script, dialect, ask, fault)
    events, end = _apply(script, dialect, ask, fault, _events(script, dialect, ask))
    writes = _frame(script, dialect, _group(script, events), clean=end == "keep" and kind != "no_end")
    if kind == "slow_head" and fault:
        writes = _dribble(writes, fault.get("gap_ms", 5.0))
    if kind == "surplus" and fault:
        extra = str(fault.get("body", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")).encode()
        writes.append(Write(writes[-1].due, writes[-1].step, extra, 0, "surplus", 0))
    if kind == "no_end":
        end = "hang"
    elif end == "keep" and (script.framing == "close" or not script.keep_alive):
        end = "close"
    return Plan(tuple(_split(script, writes)), end)


def _events(script: Script, dialect: Dialect, ask: Ask) -> list[Event]:
    found = []
    if script.role_chunk != "none" and (role := dialect.role()) is not None:
        step = -1 if script.role_chunk == "early" else 0
        found.append(Event("role", frame(script, ask, role), step))
    sizes = [1] * ask.tokens if ask.dialect == "tgi" else script.event_sizes(ask.tokens)
    with_last = script.finish == "with_last" or (dialect.finish_with_last and script.finish != "none")
    start = 0
    for i, size in enumerate(sizes):
        token = dialect.token(start, size, with_last and i == len(sizes) - 1)
        found.append(Event("token", frame(script, ask, token), i, size))
        start += size
    tail = max(len(sizes) - 1, 0)
    if script.finish == "own" and (finish := dialect.finish()) is not None:
        found.append(Event("finish", frame(script, ask, finish), tail))
    if (usage := dialect.usage()) is not None:
        found.append(Event("usage", frame(script, ask, usage), tail))
    if script.done and (done := dialect.done()) is not None:
        found.append(Event("done", frame(script, ask, done), tail))
    return found


def _apply(
    script: Script, dialect: Dialect, ask: Ask, fault: dict[str, Any] | None, events: list[Event]
) -> tuple[list[Event], str]:
    """The events as the fault leaves them, and how the connection ends."""
    if fault is None:
        return events, "keep"
    kind, after = fault["kind"], fault.get("after", 2)
    if kind == "empty":
        return [e for e in events if e.kind != "token"], "keep"
    if kind == "no_finish":
        return [e for e in events if e.kind not in ("finish", "done")], "keep"
    head, position = [], 0
    for event in events:
        if event.kind not in ("role", "token") or position >= after:
            break
        head.append(event)
        position += event.tokens
    step = max((e.step for e in head), default=0)
    rest = events[len(head) :]
    if kind in ("cut", "reset", "stall"):
        return head, {"cut": "close", "reset": "reset", "stall": "hang"}[kind]
    if kind == "error_event":
        body = fault.get("body") or dialect.error("the engine has died")
        return [*head, Event("error", frame(script, ask, body), step)], "keep"
    if kind == "half_json":
        half = frame(script, ask, dialect.token(position, 1, False))
        return [*head, Event("part", half[: len(half) // 2], step)], "keep" if fault.get("clean") else "close"
    if kind == "bad_chunk":
        return [*head, Event("bad_chunk", b"", step)], "close"
    if kind == "huge_event":
        huge = dialect.token(position, 1, False, "x" * fault.get("bytes", 11 << 20))
        return [*head, Event("token", frame(script, ask, huge), step + 1, 1), *rest[1:]], "keep"
    if kind == "bad_utf8":
        bad = frame(script, ask, dialect.token(position, 1, False, _BAD)).replace(_BAD.encode(), b"\xff\xfe\xc3")
        return [*head, Event("token", bad, step + 1, 1), *rest[1:]], "keep"
    return events, "keep"


def _group(script: Script, events: list[Event]) -> list[Write]:
    """Events with their times; token events that share a write become one."""
    first, gap = int(script.ttft_ms * _MS), int(script.gap_ms * _MS)
    per_write = max(script.events_per_write, 1)
    writes: list[Write] = []
    if script.comment_ms and script.ttft_ms:
        due = int(script.comment_ms * _MS)
        for i in range(1, int(script.ttft_ms / script.comment_ms) + 1):
            if i * due < first:
                writes.append(Write(i * due, -1, _comment(script), 1, "comment", 0))
    tokens = 0
    for event in events:
        group = event.step // per_write if event.step >= 0 else -1
        due = 0 if group < 0 else first + group * gap
        data = event.data
        if event.kind == "token":
            tokens += 1
            if script.comment_every and tokens % script.comment_every == 0:
                data = _comment(script) + data
            last = writes[-1] if writes else None
            if last is not None and last.kind == "token" and last.step == group:
                writes[-1] = Write(due, group, last.data + data, last.events + 1, "token", last.tokens + event.tokens)
                continue
        elif event.kind != "role":
            due += int(script.tail_ms * _MS)
        writes.append(Write(due, group, data, 1, event.kind, event.tokens))
    return sorted(writes, key=lambda w: w.due)


def _comment(script: Script) -> bytes:
    return f": keep-alive{script.newline}{script.newline}".encode()


def _frame(script: Script, dialect: Dialect, writes: list[Write], clean: bool) -> list[Write]:
    """The writes with the head before them and the framing around them."""
    if script.gzip:
        deflate = zlib.compressobj(wbits=31)
        writes = [w._replace(data=deflate.compress(w.data) + deflate.flush(zlib.Z_SYNC_FLUSH)) for w in writes]
        if writes:
            writes[-1] = writes[-1]._replace(data=writes[-1].data + deflate.flush())
    headers = {"content-type": dialect.content_type, "cache-control": "no-cache"}
    if script.gzip:
        headers["content-encoding"] = "gzip"
    total = sum(len(w.data) for w in writes)
    head = _head(script, 200, headers, total if script.framing == "length" else None)
    if script.framing == "chunked":
        writes = [w._replace(data=b"zz\r\n" if w.kind == "bad_chunk" else _chunk(w.data)) for w in writes]
        if clean:
            due, step = (writes[-1].due, writes[-1].step) if writes else (0, 0)
            writes.append(Write(due, step, b"0\r\n\r\n", 0, "end", 0))
    if script.head == "early" or not writes:
        return [Write(0, -1, head, 0, "head", 0), *writes]
    return [writes[0]._replace(data=head + writes[0].data), *writes[1:]]


def _head(script: Script, status: int, headers: dict[str, str], length: int | None) -> bytes:
    reasons = {200: "OK", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}
    lines = [f"HTTP/1.1 {status} {reasons.get(status, 'Fake')}", *(f"{k}: {v}" for k, v in headers.items())]
    if length is not None:
        lines.append(f"content-length: {length}")
    elif script.framing == "chunked":
        lines.append("transfer-encoding: chunked")
    closes = not script.keep_alive or (length is None and script.framing == "close")
    lines.append(f"connection: {'close' if closes else 'keep-alive'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _dribble(writes: list[Write], gap_ms: float) -> list[Write]:
    """The head byte by byte, and everything else as much later."""
    head, gap = writes[0], int(gap_ms * _MS)
    slow = [head._replace(due=i * gap, data=head.data[i : i + 1]) for i in range(len(head.data))]
    return slow + [w._replace(due=w.due + len(slow) * gap) for w in writes[1:]]


def _split(script: Script, writes: list[Write]) -> list[Write]:
    """Every write cut into pieces; only the last piece of a write holds its events."""
    size, gap = script.split_bytes, int(script.split_gap_ms * _MS)
    if not size:
        return writes
    found = []
    for w in writes:
        starts = range(0, len(w.data), size)
        for i, start in enumerate(starts):
            piece = w._replace(due=w.due + i * gap, data=w.data[start : start + size])
            found.append(piece if i == len(starts) - 1 else piece._replace(events=0, kind="part", tokens=0))
    return found


def _page(script: Script, fault: dict[str, Any]) -> Plan:
    """A reply that is no stream: an error status, a redirect, a page of HTML."""
    status, kind = fault.get("status", 500), fault.get("type", "application/json")
    body = fault.get("body") or json.dumps({"error": {"message": f"scripted {status}", "code": status}})
    headers = {"content-type": kind}
    if "retry_after" in fault:
        headers["retry-after"] = str(fault["retry_after"])
    if "location" in fault:
        headers["location"] = fault["location"]
    data = _head(script, status, headers, len(body.encode())) + body.encode()
    return Plan((Write(0, -1, data, 0, "page", 0),), "keep" if script.keep_alive else "close", False)


def _bomb(script: Script, dialect: Dialect, ask: Ask, fault: dict[str, Any]) -> Plan:
    """One compressed event of a great size."""
    event = frame(script, ask, dialect.token(0, 1, False, "0" * fault.get("bytes", 64 << 20)))
    body = gzip.compress(event, compresslevel=9, mtime=0)
    headers = {"content-type": dialect.content_type, "content-encoding": "gzip"}
    head = _head(script, 200, headers, len(body))
    return Plan((Write(int(script.ttft_ms * _MS), 0, head + body, 1, "token", 1),), "keep")


def _whole(script: Script, dialect: Dialect, ask: Ask, fault: dict[str, Any] | None) -> Plan:
    """The reply with ``stream: false``, all of it when the last token would have come."""
    body = json.dumps(dialect.whole(), ensure_ascii=False).encode()
    end = "keep" if script.keep_alive else "close"
    if fault and fault["kind"] in ("cut", "half_json"):
        end = "close"
    groups = len(script.event_sizes(ask.tokens))
    due = int((script.ttft_ms + script.gap_ms * max(groups - 1, 0)) * _MS)
    data = _head(script, 200, {"content-type": "application/json"}, len(body)) + body
    if end == "close" and fault:
        data = data[: len(data) - len(body) // 2]
    return Plan((Write(due, max(groups - 1, 0), data, 1, "whole", ask.tokens),), end)
