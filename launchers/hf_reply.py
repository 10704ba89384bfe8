"""One request on its way: `Ask` (what it wants, checked), `Reply` (its tokens, as the engine hands them over).

The HTTP side makes the Ask and reads the Reply; an engine (`hf_batching`, `hf_paged`) fills the Reply. Both sides run
in the one event loop, so nothing here locks.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that the server can serve. ``prompt`` is token ids; ``max_tokens`` is at least 1.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 do not restrict. ``seed`` None takes the server's own
    random numbers. ``min_tokens`` is the number of tokens before which the end of the text cannot be chosen;
    ``ignore_eos`` lets a reply go on after it.
    """

    prompt: list[int]
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False
    chat: bool = True


class Refused(Exception):
    """A request that is not served: an HTTP status, a sentence, the field it is about and OpenAI's code for it."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class Token(NamedTuple):
    """A token as it leaves the model. ``finish`` is None, or why it is the last: ``stop`` or ``length``."""

    id: int
    finish: str | None


@dataclass(eq=False)
class Reply:
    """The tokens of one request. Times are ``time.perf_counter()``, None until they are known.

    ``cached`` is the number of prompt tokens that were not computed again, None where the engine does not say.
    """

    ask: Ask
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first: float | None = None
    last: float | None = None
    tokens: int = 0
    cached: int | None = 0
    cancelled: bool = False
    ended: bool = False
    _events: asyncio.Queue[Token | Refused] = field(default_factory=asyncio.Queue)

    def put(self, token: Token) -> None:
        """Hands a token over; the one with a finish reason ends the reply."""
        self.last = time.perf_counter()
        if self.first is None:
            self.first = self.last
        self.tokens += 1
        if not self.cancelled:
            self.ended = token.finish is not None
            self._events.put_nowait(token)

    def fail(self, error: Refused) -> None:
        """Ends the reply with an error."""
        self.ended = True
        self._events.put_nowait(error)

    def cancel(self) -> None:
        """Says that nobody waits for the rest: the engine frees the place in its batch, and `next` raises."""
        if not self.ended:
            self.cancelled = True
            self.fail(Refused(499, "The client went away."))

    async def next(self) -> Token:
        """The next token. Raises Refused where the engine gave up on the request, or the client did."""
        event = await self._events.get()
        if isinstance(event, Refused):
            raise event
        return event


class Engine(Protocol):
    """What turns asks into tokens: a way of batching."""

    def submit(self, ask: Ask) -> Reply:
        """Takes a request. Raises Refused: 400 for what it cannot do, 503 where its queue is full or it is stopping."""

    async def run(self) -> None:
        """Works until `stop`; fails every reply that is then left. Raises what the engine died of."""

    def stop(self) -> None:
        """Takes no more requests, and ends those it has after a short grace."""

    def wake(self) -> None:
        """Looks again at what was cancelled."""

    async def reset_memory(self) -> None:
        """Starts the peaks of the GPUs' memory anew."""
