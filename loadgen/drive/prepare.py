"""What a worker makes ready before anything is timed: prompts, request bodies, counters. Off the sending path.

In: a `Job`. Out: for each session the bytes of its request, built ahead while the loop has nothing else to do; for a
later turn of a conversation once the replies before it are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen import backends, workloads
from loadgen.backends import Backend
from loadgen.drive.http import Endpoint, parse_endpoint, parse_head, request_bytes, request_head
from loadgen.drive.job import Job
from loadgen.drive.outcome import CountTokens
from loadgen.drive.reply import Reply
from loadgen.drive.scan import Vocabularies
from loadgen.drive.schedule import Send
from loadgen.record import Prompt, request_id
from loadgen.workloads.replies import open_source


class Prepared:
    """A job's constant parts, and `request` for its sessions. Where a session may have later turns it
    ``converses``, and `turn` makes them; probes ask first turns alone.

    Raises UsageError for a workload, backend, endpoint or header that cannot be used.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.backend: Backend = backends.load(job.backend)
        self.endpoints: list[Endpoint] = [parse_endpoint(url, job.proxy) for url in job.urls]
        self.heads = [request_head(endpoint, self.backend.PATH, job.headers) for endpoint in self.endpoints]
        # Of several endpoints one is chosen when a request is sent, and its head is put before the bytes then.
        self._head = self.heads[0] if len(self.heads) == 1 else b""
        context = msgspec.convert(job.context, workloads.Context)
        self._source = open_source(job.workload, job.settings, context)
        self._talking = self._source if isinstance(self._source, workloads.Conversing) else None
        self._encode = msgspec.json.Encoder().encode
        self._ahead: deque[tuple[int, tuple[Prompt, ...], bytes]] = deque()
        self._next = job.worker
        self._vocabularies: Vocabularies = {}

    def request(self, session: int) -> tuple[tuple[Prompt, ...], bytes]:
        """The turns of a session and the bytes of the request for the first."""
        while self._ahead and self._ahead[0][0] < session:
            self._ahead.popleft()
        if self._ahead and self._ahead[0][0] == session:
            _, turns, data = self._ahead.popleft()
            return turns, data
        self._next = session + self.job.workers
        return self._build(session)

    def for_warmup(self, send: Send, prompt: Prompt, data: bytes) -> tuple[Prompt, bytes]:
        """A request as it is sent in the warm-up: it may ask for a shorter reply (``load.warmup_tokens``), and is then
        encoded when it is sent, for no time of the warm-up counts."""
        most = self.job.shape.warmup_tokens
        if most is None or prompt.ask_tok <= most:
            return prompt, data
        shorter = msgspec.structs.replace(prompt, ask_tok=most)
        return shorter, self._bytes(shorter, send.session, send.turn)

    def look_ahead(self, depth: int) -> bool:
        """Builds the next request if fewer than ``depth`` are ready. True if it did something."""
        if len(self._ahead) >= depth:
            return False
        session = self._next
        self._next += self.job.workers
        self._ahead.append((session, *self._build(session)))
        return True

    def begin_reply(self, data: bytes) -> Reply | None:
        """The reply that begins with these bytes, None while its head is not whole. Raises MalformedReply."""
        head = parse_head(data)
        if head is None:
            return None
        return Reply(head, self.backend, self.job.options.stream, self.job.shape.max_event_bytes, self._vocabularies)

    @property
    def converses(self) -> bool:
        """True if replies may be answered by a next turn."""
        return self._talking is not None and self.job.phase == "measure"

    def turn(self, session: int, turn: int, replies: Sequence[str]) -> tuple[Prompt, bytes]:
        """The prompt of a later turn, with the replies to those before it, and the bytes of its request."""
        assert self._talking is not None
        prompt = self._talking.turn(session, turn, replies)
        return prompt, self._bytes(prompt, session, turn)

    def request_id(self, session: int, turn: int = 0) -> str:
        """What goes into ``x-request-id`` (see `record.request_id`)."""
        labels = self.job.labels
        return request_id((labels.run, labels.cell, labels.target, labels.rep, labels.attempt), session, turn)

    def _build(self, session: int) -> tuple[tuple[Prompt, ...], bytes]:
        turns = self._source.session(session)
        return turns, self._bytes(turns[0], session)

    def _bytes(self, prompt: Prompt, session: int, turn: int = 0) -> bytes:
        fields: dict[str, Any] = self.backend.body(prompt, self.job.options)
        return request_bytes(self._head, self.request_id(session, turn), self._encode(fields))


def token_counter(folder: str | None) -> CountTokens | None:
    """Counts tokens with the tokenizer in a local folder; None without one."""
    if folder is None:
        return None
    from loadgen.workloads.template import count_tokens

    return count_tokens(Path(folder))
