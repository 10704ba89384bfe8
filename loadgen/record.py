"""What passes along the measuring path: Prompt -> (request) -> Chunk -> Record. The JSONL format lives here only.

In: nothing; this file is at the bottom. Out: the types that workloads make (`Prompt`), backends make (`Chunk`) and
the driver writes (`Record`, one JSON line a request, "request line v1"). It is imported by every worker process, so it
imports msgspec and nothing else that costs start-up time.
"""

from __future__ import annotations

import hashlib
import socket
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

VERSION = 1
"""Version of the request line. It is raised when a field changes its meaning; new fields do not raise it."""

Phase = Literal["warmup", "measure", "probe"]

STATUSES = (
    "ok",
    "http_error",  # a status line other than 200 (429 apart)
    "rate_limited",  # 429
    "connect_error",  # refused, unreachable, TLS failure, name not found
    "timeout",  # the whole request took longer than load.timeout_s
    "stalled",  # no byte for load.stall_timeout_s
    "reset",  # the connection was cut in the middle
    "truncated",  # the stream ended without what this protocol ends with
    "error_event",  # an error inside a 200
    "malformed",  # bytes that are not this protocol
    "empty",  # a complete reply without a token
    "dropped",  # the client's own cap (load.max_in_flight): never sent
    "unsent",  # a turn of a conversation whose turn before it failed: never sent
    "cancelled",  # the run was interrupted, or the drain ran out
)


class Message(msgspec.Struct, frozen=True):
    """One chat message. ``role`` is system, user or assistant."""

    role: str
    content: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request asks. Exactly one of ``messages``, ``text`` and ``token_ids`` is set.

    ``source`` is the workload's name (and, in a mix, the part's). ``ask_tok`` is the number of output tokens asked
    for; with ``exact`` the reply must have that many, else it is an upper limit. ``in_tok_client`` is the number of
    input tokens as the client counted them, None where the client has no tokenizer. A later turn of a conversation is
    sent ``think_s`` seconds after the end of the reply before it.
    """

    source: str
    ask_tok: int
    exact: bool = False
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    in_tok_client: int | None = None
    think_s: float = 0.0

    def sha(self) -> str:
        """First 16 hex digits of the SHA-256 of what is asked (content only), for pairing requests across targets."""
        if self.messages is not None:
            data = msgspec.json.encode(self.messages)
        elif self.text is not None:
            data = self.text.encode()
        else:
            data = msgspec.json.encode(self.token_ids)
        return hashlib.sha256(data).hexdigest()[:16]


class Usage(msgspec.Struct, frozen=True):
    """The server's own counts for a request; None where it does not say."""

    in_tok: int | None = None
    out_tok: int | None = None
    cached_tok: int | None = None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What one event of a reply means, whatever protocol it came in.

    ``text`` is everything generated in this event (content, reasoning under either name, tool-call arguments);
    ``tokens`` is how many tokens the server says it holds (by ids), None where it does not say. ``usage`` is the
    server's count for the whole request so far. ``error`` is an error inside a 200. ``done`` marks the protocol's own
    end of stream. ``server_times`` is what the engine says of its own timing. With ``cumulative`` the text and the
    tokens are those of the whole reply so far; `after` makes the event's own share of them.
    """

    text: str = ""
    tokens: int | None = None
    cumulative: bool = False
    finish: str | None = None
    usage: Usage | None = None
    error: str | None = None
    done: bool = False
    server_times: dict[str, Any] | None = None

    @property
    def carries_token(self) -> bool:
        """True for the events that TTFT and the end of decoding count: some text, or a token id without text yet."""
        return bool(self.text) or bool(self.tokens)

    def after(self, previous: Chunk | None) -> Chunk:
        """What a cumulative chunk adds to the cumulative chunk before it (None for the first); others stay as they are.

        Text that does not go on from the text before is taken whole.
        """
        if not self.cumulative:
            return self
        text, tokens = (previous.text, previous.tokens or 0) if previous is not None else ("", 0)
        return msgspec.structs.replace(
            self,
            text=self.text[len(text) :] if self.text.startswith(text) else self.text,
            tokens=max(self.tokens - tokens, 0) if self.tokens is not None else None,
            cumulative=False,
        )


class Record(msgspec.Struct, kw_only=True):
    """Request line v1. Times are seconds from the start of the repeat, None where undefined.

    ``t_sched`` is when the schedule wanted the request sent; in a closed loop it is the end of the slot's previous
    reply, and for a later turn of a conversation the end of the reply before it and the think time. ``seq`` numbers the
    requests, ``session`` the conversations; the turns of one (from 0) have its session. ``ttft_s`` and ``e2e_s`` count
    from ``t_send``; definitions are in ``metrics.py``. ``chunk_us`` holds the arrival of each token-bearing chunk in
    whole microseconds after ``t_send``; ``chunk_tok`` the tokens in each (None means one each). ``clock`` says who
    stamped the arrivals: the kernel on receipt, or this program when it got to read. ``lag_us_max`` is the longest time
    that received bytes waited for the client; ``coalesced`` counts reads in which several writes of the server had
    merged, so that only the newest stamp was left.
    """

    v: int = VERSION
    run: str = ""
    cell: str = ""
    target: str = ""
    rep: int = 0
    attempt: int = 1
    server: str | None = None
    endpoint: str = ""
    driver: str = "loadgen"
    worker: int = 0
    seq: int
    session: int
    turn: int = 0
    source: str = ""
    phase: Phase
    t_sched: float
    t_send: float | None = None
    t_first: float | None = None
    t_last: float | None = None
    t_end: float | None = None
    conn_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    chunk_us: list[int] = msgspec.field(default_factory=list)
    chunk_tok: list[int] | None = None
    ask_tok: int | None = None
    in_tok: int | None = None
    in_tok_client: int | None = None
    cached_tok: int | None = None
    out_tok: int | None = None
    tok_source: Literal["usage", "ids", "tokenizer"] | None = None
    clock: Literal["kernel", "user"] | None = None
    lag_us_max: int | None = None
    coalesced: int = 0
    status: str
    http: int | None = None
    err: str | None = None
    finish: str | None = None
    server_times: dict[str, Any] | None = None
    prompt_sha: str | None = None
    out_sha: str | None = None
    text: str | None = None

    def request_id(self) -> str:
        """The ``x-request-id`` that this request was sent with."""
        return request_id((self.run, self.cell, self.target, self.rep, self.attempt), self.session, self.turn)


def request_id(labels: Iterable[object], session: int, turn: int = 0) -> str:
    """What goes into ``x-request-id``, so that a server's log can be joined with the records: the UUID (version 5, of
    URLs) of ``run-cell-target-rep-attempt-session``, of which ``labels`` are the first five; later turns of a
    conversation add ``-turn``. A UUID, because llama-cpp-python answers any other with 400 and not a word."""
    names = (*labels, session, turn) if turn else (*labels, session)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "-".join(map(str, names))))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def to_line(record: Record) -> bytes:
    """The record as one JSON line, newline included."""
    return _encoder.encode(record) + b"\n"


def from_line(line: bytes) -> Record:
    """The record of a line. Fields that this version does not know are ignored.

    Raises msgspec.DecodeError for a line that is cut off or is no record.
    """
    return _decoder.decode(line)


def host_name() -> str:
    """This machine's name as a part of a file's name."""
    return "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())[:40] or "host"


def lines_name(host: str, worker: int) -> str:
    """The name of the file that holds a worker's request lines."""
    return f"requests-{host}-w{worker}.jsonl"


def read_records(paths: Iterable[Path]) -> Iterator[Record]:
    """Records of one repeat, file by file; ``.gz`` files are read as they are.

    A last line without its newline (the process was killed while writing it) is passed over: no acknowledged record
    is ever in that state, because a record is acknowledged by its newline.
    """
    for path in paths:
        with _open(path) as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield _decoder.decode(line)


def _open(path: Path) -> Any:
    if path.suffix == ".gz":
        import gzip

        return gzip.open(path, "rb")
    return path.open("rb")
