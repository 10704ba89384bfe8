"""Batching by our own loop over `hf_slots`: continuous, static or none.

continuous: a request joins the batch as soon as a row is free; between two decode steps at most one prompt is computed,
so that those who already receive tokens wait for one prompt and not for a burst of them. static: a batch is formed from
what waits, runs until its last reply ends, and only then the next is formed. none: one request at a time.

The loop is a task of the event loop; each prefill and each step runs in one thread of its own, so that the event loop
reads new requests meanwhile. A step's tokens are handed over, and the event loop then runs once around before the next
step is started: every token is on its socket before the model works on the next one.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from hf_choose import Chooser, choose
from hf_metrics import Metrics
from hf_reply import Ask, Refused, Reply, Token

if TYPE_CHECKING:
    from hf_slots import Rows

T = TypeVar("T")
GRACE_S = 2.0
"""After `stop`, what is in the batch may go on for so long."""

PAUSE_STEPS = 3
"""So many delays after a step, the next one is the first of others."""


@dataclass(eq=False)
class Row:
    """A reply in the batch, with its newest token, which is the next step's input."""

    reply: Reply
    chooser: Chooser
    token: int = -1


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How requests are let in. ``way`` is continuous, static or none. ``step_delay_s`` is how long after the step
    before a decode step ends at the earliest, so that its own time does not show."""

    way: str
    max_waiting: int
    step_delay_s: float = 0.0
    ends: frozenset[int] = frozenset()
    seed: int = 0


class Batching:
    """The engine over slots. All methods are called in the event loop; ``thread`` is where the model runs."""

    def __init__(self, slots: Rows, policy: Policy, metrics: Metrics, thread: ThreadPoolExecutor) -> None:
        self._slots = slots
        self._policy = policy
        self._metrics = metrics
        self._thread = thread
        self._waiting: deque[Reply] = deque()
        self._rows: list[Row] = []
        self._stepped = 0.0
        self._random = torch.Generator().manual_seed(policy.seed)
        self._news = asyncio.Event()
        self._stop_at: float | None = None

    def submit(self, ask: Ask) -> Reply:
        """Takes a request into the queue. Raises Refused (503) where the queue is full or the server stops."""
        if self._stop_at is not None:
            raise Refused(503, "The server is stopping and takes no more requests.", code="stopping")
        if len(self._waiting) >= self._policy.max_waiting:
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
        """Starts the peaks of memory anew, between two steps."""
        await self._in_thread(self._slots.reset_memory)

    def stop(self) -> None:
        """Takes no more requests; what is in the batch has `GRACE_S` to end, counted from the first call."""
        if self._stop_at is None:
            self._stop_at = time.perf_counter() + GRACE_S
        self.wake()

    async def run(self) -> None:
        """Works until `stop`. A step that fails ends the replies in it with an error; the loop goes on."""
        try:
            while not self._over():
                await self._round()
        finally:
            self.stop()
            self._fail_all(Refused(503, "The server was stopped before this reply was whole.", code="stopping"))
        await asyncio.sleep(0)

    async def _round(self) -> None:
        """At most one prefill and one decode step; waits where there is nothing to do."""
        self._news.clear()
        self._drop_cancelled()
        self._gauge()
        if not self._waiting and not self._rows:
            await self._news.wait()
            return
        if self._lets_in():
            await self._prefill(self._waiting.popleft())
            await asyncio.sleep(0)
        if self._rows:
            await self._decode()
        await asyncio.sleep(0)

    def _over(self) -> bool:
        if self._stop_at is None:
            return False
        return time.perf_counter() >= self._stop_at or not (self._rows or self._waiting)

    def _lets_in(self) -> bool:
        if not self._waiting or len(self._rows) >= self._slots.rows:
            return False
        if self._policy.way == "continuous":
            return True
        # static and none: while a batch is being formed none of its replies has gone past its first token
        return all(row.reply.tokens == 1 for row in self._rows)

    async def _prefill(self, reply: Reply) -> None:
        self._metrics.started(reply)
        row = Row(reply, self._chooser(reply.ask))

        def work() -> int:
            return choose(self._slots.prefill(reply.ask.prompt)[None], [row.chooser], [0])[0]

        try:
            token = await self._in_thread(work)
        except Exception as error:  # noqa: BLE001 - whatever the model raises is this request's failure, not the server's
            self._metrics.ended("error")
            reply.fail(failure(error))
            self._slots.cut(len(self._rows))
            return
        self._rows.append(row)
        self._hand_over([token], [row])

    async def _decode(self) -> None:
        if self._policy.way != "continuous" and self._lets_in():
            return  # the batch is still being formed
        rows = list(self._rows)

        def work() -> list[int]:
            logits = self._slots.decode([row.token for row in rows])
            tokens = choose(logits, [row.chooser for row in rows], [row.reply.tokens for row in rows])
            self._delay()
            return tokens

        try:
            tokens = await self._in_thread(work)
        except Exception as error:  # noqa: BLE001 - as above: these requests fail, the server lives on
            self._fail_rows(failure(error))
            return
        self._metrics.step(len(rows))
        self._hand_over(tokens, rows)

    def _delay(self) -> None:
        """Lets a decode step last as long as it is to last. After a pause it begins anew."""
        delay, now = self._policy.step_delay_s, time.perf_counter()
        if delay:
            since = self._stepped if now - self._stepped < PAUSE_STEPS * delay else now
            time.sleep(max(0.0, since + delay - now))
            self._stepped = time.perf_counter()

    def _hand_over(self, tokens: list[int], rows: list[Row]) -> None:
        for token, row in zip(tokens, rows, strict=True):
            row.token = token
            finish = row.chooser.finish(token, row.reply.tokens + 1)
            row.reply.put(Token(token, finish))
            self._metrics.token(row.reply)
            if finish:
                self._free(row, finish)

    def _drop_cancelled(self) -> None:
        for row in [row for row in self._rows if row.reply.cancelled]:
            self._free(row, "cancelled")
        for reply in [reply for reply in self._waiting if reply.cancelled]:
            self._waiting.remove(reply)
            self._metrics.ended("cancelled")

    def _free(self, row: Row, outcome: str) -> None:
        """Takes a row out; as in `Slots.drop`, the last one takes its place."""
        place = self._rows.index(row)
        self._slots.drop(place)
        last = self._rows.pop()
        if last is not row:
            self._rows[place] = last
        self._metrics.ended(outcome)

    def _fail_rows(self, error: Refused) -> None:
        for row in self._rows:
            self._metrics.ended("error")
            row.reply.fail(error)
        self._rows.clear()
        self._slots.cut(0)

    def _fail_all(self, error: Refused) -> None:
        self._fail_rows(error)
        for reply in self._waiting:
            self._metrics.ended("error")
            reply.fail(error)
        self._waiting.clear()
        self._gauge()

    def _gauge(self) -> None:
        self._metrics.running.set(len(self._rows))
        self._metrics.waiting.set(len(self._waiting))

    def _chooser(self, ask: Ask) -> Chooser:
        own = self._random if ask.seed is None else torch.Generator().manual_seed(ask.seed)
        return Chooser(ask, self._policy.ends, own)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def failure(error: Exception) -> Refused:
    """What a client is told of a step that failed; the log has the rest."""
    traceback.print_exception(error)
    traceback.clear_frames(error.__traceback__)  # they hold what the step had allocated
    if isinstance(error, torch.OutOfMemoryError):
        return Refused(
            503,
            f"Out of memory: {str(error).splitlines()[0]} Start the server with a smaller --max-batch-size or "
            "--max-model-len.",
            code="out_of_memory",
        )
    return Refused(500, f"The model failed: {type(error).__name__}: {error}. The server's log has the rest.")
