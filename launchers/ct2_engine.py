"""Batching by CTranslate2's Generator: static. A batch is formed of what waits, and the next when its last reply ends.

The library has no continuous batching: a call of ``generate_batch`` takes all its prompts at the start. What it does
well stands: a reply that ends leaves the batch, so that later steps are smaller. What a measurement should know: the
prompts of a batch are computed together up to the length of the shortest, and what others have beyond that is fed one
token a step, as if it were decoded. So only prompts of about one length share a batch (`together`); very unequal ones
would take turns in it, and longer than one after the other. One set of options holds for the whole batch, so they must
ask alike, too.

The library calls back from its own thread for every token, and each is handed to the event loop at once. The last
call of a step returns when its tokens are on their sockets: else the next step takes the core away from the event loop,
and where server and library share one the whole reply would be sent at its end.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hf_metrics import Metrics
from hf_reply import Ask, Refused, Reply, Token

GRACE_S = 2.0
"""After `stop`, the batch that runs may go on for so long."""
SENT_S = 1.0
"""The longest that a step waits for its tokens to be sent."""
GATHER_S = 0.005
"""Where some wait when a batch ends, the next is formed so much later. Clients that wait for their reply ask again in
that moment; without it, those of one batch find the other batch begun, and two half batches take turns for ever."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is loaded. ``vocabulary`` is the token of every id, since the library takes prompts as those;
    ``ends`` are the ids that end a text; ``length`` is the most tokens of prompt and reply together."""

    generator: Any
    vocabulary: Sequence[str]
    ends: tuple[int, ...]
    length: int


class Kind(NamedTuple):
    """What the requests of one batch have in common. ``least`` is the tokens before which no end can come; None: an end
    never comes."""

    temperature: float
    top_p: float
    top_k: int
    least: int | None


def kind_of(ask: Ask) -> Kind:
    """The batches that a request fits into."""
    least = None if ask.ignore_eos else ask.min_tokens
    if ask.temperature == 0:
        return Kind(0.0, 1.0, 0, least)
    return Kind(ask.temperature, ask.top_p, ask.top_k, least)


def together(asks: Sequence[Ask]) -> bool:
    """True if these are better computed in one batch than apart: the steps that the longer prompts take beyond the
    shortest are at most half of those of the shortest reply."""
    lengths = [len(ask.prompt) for ask in asks]
    return max(lengths) - min(lengths) <= min(ask.max_tokens for ask in asks) // 2


def options_of(kind: Kind, asks: Sequence[Ask], ends: Sequence[int]) -> Mapping[str, Any]:
    """The words of ``generate_batch`` for a batch. Where no end may come, the end of text is barred for as long as the
    longest reply is; a shorter one is ended by its callback."""
    most = max(ask.max_tokens for ask in asks)
    words: dict[str, Any] = {
        "max_length": most,
        "min_length": most if kind.least is None else min(kind.least, most),
        "include_prompt_in_result": False,  # and so prompts are computed at once, not token by token
        "max_batch_size": 0,  # as it is: the batch was formed here
        "beam_size": 1,
    }
    if ends:
        words["end_token"] = list(ends)
    if kind.temperature == 0:
        return {**words, "sampling_topk": 1}
    chance = {"sampling_topk": kind.top_k, "sampling_topp": kind.top_p, "sampling_temperature": kind.temperature}
    return {**words, **chance}


@dataclass(eq=False)
class Batch:
    """The replies of one call. ``made`` counts the tokens of each, as the library's thread sees them; ``ended`` are the
    rows that have their last."""

    kind: Kind
    replies: list[Reply]
    made: list[int] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    step: int = 0
    rows: int = 0  # tokens of the step that is being called back, without those that came of a prompt

    def __post_init__(self) -> None:
        self.made = [0] * len(self.replies)
        shortest = min(len(reply.ask.prompt) for reply in self.replies)
        self._begins = [len(reply.ask.prompt) - shortest for reply in self.replies]
        self._called = (-1, 0)

    def is_last_call(self, step: int) -> bool:
        """Counts a call of this step; True if no other row has a token in it. A row's first token comes in the step
        that has fed what its prompt has beyond the shortest one."""
        if step != self._called[0]:
            due = sum(begin <= step and row not in self.ended for row, begin in enumerate(self._begins))
            self._called = (step, due)
        self._called = (step, self._called[1] - 1)
        return self._called[1] == 0


class StaticBatching:
    """The engine over a Generator. All methods but `_token` are called in the event loop; the library works in
    ``thread``."""

    def __init__(self, model: Model, metrics: Metrics, thread: ThreadPoolExecutor, *, rows: int, waiting: int) -> None:
        self._model = model
        self._metrics = metrics
        self._thread = thread
        self._rows = rows
        self._most_waiting = waiting
        self._waiting: deque[Reply] = deque()
        self._news = asyncio.Event()
        self._stop_at: float | None = None

    def submit(self, ask: Ask) -> Reply:
        """Takes a request into the queue. Raises Refused: 400 for a seed, 503 where the queue is full or it stops."""
        if self._stop_at is not None:
            raise Refused(503, "The server is stopping and takes no more requests.", code="stopping")
        if ask.seed is not None and ask.temperature > 0:
            raise Refused(
                400,
                "seed: CTranslate2 has one stream of random numbers for a whole batch, so a seed cannot give the same "
                "text again; leave it out, or send temperature 0.",
                param="seed",
            )
        if len(self._waiting) >= self._most_waiting:
            raise Refused(
                503,
                f"{len(self._waiting)} requests are waiting, and this server lets no more wait; "
                "send fewer at once, or start it with a higher --max-waiting.",
                code="queue_full",
            )
        reply = Reply(ask)
        self._waiting.append(reply)
        self.wake()
        return reply

    def wake(self) -> None:
        """Looks again at what waits and at what was cancelled."""
        self._news.set()

    async def reset_memory(self) -> None:
        """Nothing: the library does not tell its memory."""

    def stop(self) -> None:
        """Takes no more requests; the batch that runs has `GRACE_S` to end, counted from the first call."""
        if self._stop_at is None:
            self._stop_at = time.perf_counter() + GRACE_S
        self.wake()

    async def run(self) -> None:
        """Works until `stop`. A batch that fails ends its replies with an error; the loop goes on."""
        while self._stop_at is None:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(0)  # requests that arrived in the same moment share a batch
            while self._stop_at is None and (batch := self._form()) is not None:
                await self._run(batch)
                if 0 < len(self._waiting) < self._rows:
                    await asyncio.sleep(GATHER_S)
        for reply in self._waiting:
            self._fail(reply, Refused(503, "The server was stopped before this reply began.", code="stopping"))
        self._waiting.clear()
        await asyncio.sleep(0)

    def _form(self) -> Batch | None:
        """The next batch: the request that waits longest, and those after it that fit. None if none waits."""
        kind: Kind | None = None
        taken: list[Reply] = []
        for reply in list(self._waiting):
            if reply.cancelled:
                self._waiting.remove(reply)
                self._metrics.ended("cancelled")
            elif (
                len(taken) < self._rows
                and kind in (None, kind_of(reply.ask))
                and together([*(other.ask for other in taken), reply.ask])
            ):
                kind = kind_of(reply.ask)
                self._waiting.remove(reply)
                taken.append(reply)
                self._metrics.started(reply)
        self._metrics.waiting.set(len(self._waiting))
        return Batch(kind, taken) if kind is not None else None

    async def _run(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        asks = [reply.ask for reply in batch.replies]
        prompts = [[self._model.vocabulary[token] for token in ask.prompt] for ask in asks]
        words = options_of(batch.kind, asks, self._model.ends)
        callback = functools.partial(self._token, loop, batch)
        self._metrics.running.set(len(batch.replies))
        error = Refused(503, "The server was stopped before this reply was whole.", code="stopping")
        try:
            await loop.run_in_executor(
                self._thread,
                functools.partial(self._model.generator.generate_batch, prompts, callback=callback, **words),
            )
        except Exception as failure:  # noqa: BLE001 - these requests fail, the server lives on
            traceback.print_exception(failure)
            error = Refused(500, f"CTranslate2 failed: {failure}. The server's log has the rest.")
        self._end_step(batch)
        for reply in batch.replies:
            if reply.cancelled:
                self._metrics.ended("cancelled")
            elif not reply.ended:
                self._fail(reply, error)
        self._metrics.running.set(0)

    def _token(self, loop: asyncio.AbstractEventLoop, batch: Batch, result: Any) -> bool:
        """One token, in the library's thread. True ends its reply there."""
        row: int = result.batch_id
        reply = batch.replies[row]
        last = batch.is_last_call(result.step)
        batch.made[row] += 1
        finish = None
        if result.token_id in self._model.ends and not reply.ask.ignore_eos:
            finish = "stop"
        elif batch.made[row] >= reply.ask.max_tokens:
            finish = "length"
        loop.call_soon_threadsafe(self._hand_over, batch, result.step, reply, Token(result.token_id, finish))
        if last:
            sent = threading.Event()
            # once around to wake those who wait for the tokens, and once more after they have written them
            loop.call_soon_threadsafe(loop.call_soon, loop.call_soon, sent.set)
            sent.wait(SENT_S)
        over = self._stop_at is not None and time.perf_counter() > self._stop_at
        ends = finish is not None or result.is_last or reply.cancelled or over
        if ends:
            batch.ended.add(row)
        return ends

    def _hand_over(self, batch: Batch, step: int, reply: Reply, token: Token) -> None:
        if step != batch.step:
            self._end_step(batch)
            batch.step = step
        if reply.tokens:  # the first token comes of the prompt and is no decode step
            batch.rows += 1
        reply.put(token)
        self._metrics.token(reply)
        if token.finish:
            self._metrics.running.dec()
            if not reply.cancelled:
                self._metrics.ended(token.finish)

    def _end_step(self, batch: Batch) -> None:
        if batch.rows:
            self._metrics.step(batch.rows)
        batch.rows = 0

    def _fail(self, reply: Reply, error: Refused) -> None:
        self._metrics.ended("cancelled" if reply.cancelled else "error")
        if not reply.ended:
            reply.fail(error)
