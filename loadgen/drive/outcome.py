"""An exchange that has ended becomes a record: how it ended, when its tokens came, how many there were.

This is the seam behind which a driver can be replaced: whatever client moved the bytes, it leaves an `Exchange` (times,
how it ended) and a reply (the token-bearing arrivals and the server's own counts). Statuses are those of record.py;
the definitions of the times are those of metrics.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loadgen.drive.http import MalformedReply
from loadgen.drive.job import Job
from loadgen.drive.reply import Reply
from loadgen.drive.sockets import READ
from loadgen.drive.stamps import last_read_of
from loadgen.record import Phase, Prompt, Record
from loadgen.redact import redact

_TEXT_LIMIT = 300
"""Longest error text that is kept; a server's error body can be a page."""


class Exchange:
    """One request on its way. Times are monotonic ns, 0 while they have not come.

    ``pieces`` are bytes waiting to be understood and ``marks`` when each came (`stamps.py`); ``queued`` says that the
    exchange stands in that queue. It is read ``room`` bytes at a time; ``hot`` is that, too, while its first token is
    in and its chunked stream is read without a second look, else 0; ``plain``: it does not run over TLS. ``last_read``
    leaves out the pieces that wait, `heard_at` does not. ``failed`` is the status that the driver itself saw (timeout,
    reset ...), None while nothing failed, and ``why`` its text. ``kernel`` is True while every arrival was stamped by
    the kernel. ``closed``: the server closed the connection; ``ended``: no more can come. ``left`` is what is missing
    of a known length; ``place`` the number of its endpoint where there are several.
    """

    __slots__ = (
        "closed",
        "conn_s",
        "ended",
        "failed",
        "head",
        "hot",
        "kernel",
        "lag_ns",
        "last_read",
        "left",
        "marks",
        "phase",
        "pieces",
        "place",
        "plain",
        "prompt",
        "queued",
        "reply",
        "room",
        "send",
        "t_due",
        "t_end",
        "t_send",
        "why",
    )

    def __init__(self, send: Any, prompt: Prompt, phase: Phase) -> None:
        self.send = send
        self.prompt = prompt
        self.phase = phase
        self.pieces: list[bytes] = []
        self.marks = bytearray()
        self.reply: Reply | None = None
        self.head = b""
        self.left: int | None = None
        self.failed: str | None = None
        self.why: str | None = None
        self.conn_s: float | None = None
        self.kernel = True
        self.lag_ns = 0
        self.t_due = 0
        self.t_send = 0
        self.last_read = 0
        self.t_end = 0
        self.hot = 0
        self.room = READ
        self.place = 0
        self.plain = True
        self.closed = False
        self.ended = False
        self.queued = False

    @property
    def heard_at(self) -> int:
        """When bytes of it were last read (monotonic ns)."""
        return max(self.last_read, last_read_of(self.marks))

    def never(self, status: str, why: str) -> None:
        """It ends without having been sent."""
        self.failed, self.why, self.ended = status, why, True


CountTokens = Callable[[str], int]


def judge(exchange: Exchange) -> tuple[str, str | None]:
    """(status, error text) of an ended exchange: a failure that the driver saw, else what the reply itself says.

    An error that the server sent comes before everything that followed from it.
    """
    reply = exchange.reply
    if reply is not None and reply.said.error is not None:
        return "error_event", reply.said.error
    if exchange.failed is not None:
        return exchange.failed, exchange.why
    if reply is None:
        return "malformed", "the reply has no head"
    status = reply.head.status
    if status != 200:
        after = f" (Retry-After: {reply.head.retry_after})" if reply.head.retry_after else ""
        return ("rate_limited" if status == 429 else "http_error"), f"{status}{after}: {reply.excerpt()}"
    if reply.head.is_html:
        return "malformed", f"the server answered 200 with HTML instead of a stream of events: {reply.excerpt()}"
    if not reply.complete:
        return "truncated", "the connection was closed before the reply was complete"
    said = reply.said
    if (reply.stream and not (said.done or said.finish)) or (reply.backend.NEEDS_DONE and not said.done):
        return "truncated", "the stream ended without a finish reason or end marker"
    if not reply.chunk_ns and reply.stream:
        return "empty", "the reply is complete and has no token"
    if not reply.stream and not (said.text() or (said.usage and said.usage.out_tok)):
        return "empty", "the reply is complete and has no token"
    return "ok", None


def to_record(exchange: Exchange, job: Job, start: int, count_tokens: CountTokens | None = None) -> Record:
    """The record of an ended exchange. ``start`` is the start of the repeat (monotonic ns).

    ``count_tokens`` counts the tokens of a text where the server says nothing; None without a tokenizer.
    """
    if exchange.reply is not None and exchange.failed is None:
        try:
            exchange.reply.close()
        except MalformedReply as error:
            exchange.failed, exchange.why = "malformed", str(error)
    status, why = judge(exchange)
    prompt = exchange.prompt
    record = Record(
        run=job.labels.run,
        cell=job.labels.cell,
        target=job.labels.target,
        rep=job.labels.rep,
        attempt=job.labels.attempt,
        server=job.labels.server,
        endpoint=job.endpoints[exchange.place] if job.endpoints else job.labels.endpoint,
        driver=job.driver,
        worker=job.worker,
        seq=exchange.send.session if exchange.send.seq is None else exchange.send.seq,
        session=exchange.send.session,
        turn=exchange.send.turn,
        source=prompt.source,
        phase=exchange.phase,
        t_sched=_since(exchange.send.due, start),
        status=status,
        err=_one_line(redact(why, job.hidden)) if why else None,
        ask_tok=prompt.ask_tok,
        in_tok_client=prompt.in_tok_client,
        prompt_sha=prompt.sha(),
        conn_s=exchange.conn_s,
    )
    if exchange.t_send:
        record.t_send = _since(exchange.t_send, start)
    if exchange.t_end:
        record.t_end = _since(exchange.t_end, start)
    if exchange.reply is not None:
        _add_reply(record, exchange, exchange.reply, start)
        _add_tokens(record, exchange.reply, count_tokens)
        if job.save_text:
            record.text = redact(exchange.reply.said.text(), job.hidden)
    _add_rates(record)
    return record


def _add_reply(record: Record, exchange: Exchange, reply: Reply, start: int) -> None:
    record.http = reply.head.status
    record.finish = reply.said.finish
    record.server_times = reply.said.server_times
    record.out_sha = reply.said.text_sha()
    record.clock = "kernel" if exchange.kernel else "user"
    record.lag_us_max = exchange.lag_ns // 1000
    record.coalesced = reply.coalesced
    if reply.chunk_ns:
        sent = exchange.t_send
        record.chunk_us = [(at - sent + 500) // 1000 for at in reply.chunk_ns]
        record.t_first = _since(reply.chunk_ns[0], start)
        record.t_last = _since(reply.chunk_ns[-1], start)
        record.ttft_s = (reply.chunk_ns[0] - sent) / 1e9
        record.e2e_s = (reply.chunk_ns[-1] - sent) / 1e9
    elif not reply.stream and record.status == "ok":
        record.t_last = record.t_end
        record.e2e_s = (exchange.t_end - exchange.t_send) / 1e9


def _add_tokens(record: Record, reply: Reply, count_tokens: CountTokens | None) -> None:
    """Tokens by the server's usage, else by the ids that it sent, else by the tokenizer; never by counting chunks."""
    by_ids = len(reply.chunk_tok) or None
    if reply.chunk_tok.count(1) != by_ids:  # nearly always there is one each
        by_ids = sum(reply.chunk_tok) if reply.chunk_tok and all(reply.chunk_tok) else None
        if by_ids is not None and reply.stream:
            record.chunk_tok = reply.chunk_tok
    usage = reply.said.usage
    if usage is not None:
        record.in_tok = usage.in_tok
        record.cached_tok = usage.cached_tok
    if usage is not None and usage.out_tok is not None:
        record.out_tok, record.tok_source = usage.out_tok, "usage"
    elif by_ids is not None:
        record.out_tok, record.tok_source = by_ids, "ids"
    elif count_tokens is not None and (text := reply.said.text()):
        record.out_tok, record.tok_source = count_tokens(text), "tokenizer"


def _add_rates(record: Record) -> None:
    if record.ttft_s is not None and record.e2e_s is not None and (record.out_tok or 0) >= 2:
        assert record.out_tok is not None
        record.tpot_s = (record.e2e_s - record.ttft_s) / (record.out_tok - 1)


def _since(at: int, start: int) -> float:
    return (at - start) / 1e9


def _one_line(text: str) -> str:
    """Without line ends and control characters: this text reaches terminals."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:_TEXT_LIMIT]
