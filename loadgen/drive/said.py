"""What the events of a reply say: its text, the server's counts, and how it ended.

In: the JSON of events, which `backends` understand. The text of familiar ones is added as it stands on the wire.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec

from loadgen.drive.http import MalformedReply
from loadgen.drive.template import escaped, spelled
from loadgen.record import Chunk, Usage

NOT_MEANT = (AttributeError, KeyError, TypeError, IndexError, ValueError, RecursionError)
"""What comes of JSON that a backend does not expect, and of bytes that are no JSON."""
_MOST = 1 << 53


class Said:
    """``texts`` holds the pieces of the generated text, spelled as in JSON strings; ``done`` is True once the server
    said that nothing follows."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.error: str | None = None
        self.done = False
        self.server_times: dict[str, Any] | None = None
        self.texts: list[bytes] = []
        self._text: str | None = None
        self._whole: Chunk | None = None

    def take(self, chunk: Chunk) -> Chunk:
        """Takes an event; what is new in it, where each event repeats what was said before."""
        if chunk.cumulative:
            chunk, self._whole = chunk.after(self._whole), chunk
        if chunk.error is not None and self.error is None:
            self.error = chunk.error
        self.done = self.done or chunk.done
        self.finish = chunk.finish or self.finish
        self.usage = chunk.usage or self.usage
        self.server_times = chunk.server_times or self.server_times
        if chunk.text:
            self.texts.append(escaped(chunk.text))
        return chunk

    def spell(self) -> None:
        """Makes the text of its pieces. Raises MalformedReply where they are no JSON string."""
        try:
            self._text = spelled(self.texts)
        except ValueError as error:
            raise MalformedReply(f"an event's text is no JSON string: {error}") from error

    def text(self) -> str:
        """All generated text. What cannot be read in it is replaced by U+FFFD."""
        if self._text is None:
            try:
                self.spell()
            except MalformedReply:
                self._text = b"".join(self.texts).decode("utf-8", "replace")
        return self._text or ""

    def text_sha(self) -> str | None:
        """First 16 hex digits of the SHA-256 of the generated text, None where there is no text."""
        text = self.text()
        return hashlib.sha256(text.encode()).hexdigest()[:16] if text else None


def meaning(data: bytes, understand: Callable[[Any], Chunk]) -> Chunk:
    """What an event's JSON means to a backend. Raises MalformedReply if this protocol sends no such thing."""
    try:
        return _check(understand(_decoded(data)))
    except NOT_MEANT as error:
        start = data[:120].decode("utf-8", "replace")
        raise MalformedReply(f"an event is not what this protocol sends ({error}): {start}") from error


def meaning_of(event: Any, understand: Callable[[Any], Chunk]) -> Chunk:
    """The same of an event that a client has decoded already."""
    try:
        return _check(understand(event))
    except NOT_MEANT as error:
        raise MalformedReply(f"an event is not what this protocol sends: {error}") from error


def _decoded(data: bytes) -> Any:
    """JSON as servers write it, with NaN and half surrogate pairs, too. Raises ValueError for any other bytes."""
    try:
        return msgspec.json.decode(data)
    except ValueError:
        return json.loads(data.decode())


def _check(chunk: Chunk) -> Chunk:
    """The same chunk. Raises TypeError or ValueError for a value of a kind that no record can hold."""
    usage = chunk.usage
    counts = (chunk.tokens,) if usage is None else (chunk.tokens, usage.in_tok, usage.out_tok, usage.cached_tok)
    for count in counts:
        if count is not None and (type(count) is not int or not 0 <= count < _MOST):
            raise TypeError(f"{count!r} is no number of tokens")
    if type(chunk.text) is not str or type(chunk.finish) not in (str, type(None)):
        raise TypeError("text or finish reason is no string")
    if chunk.finish is not None or chunk.server_times is not None:
        if type(chunk.server_times) not in (dict, type(None)):
            raise TypeError("the server's times are no object")
        msgspec.json.encode((chunk.finish, chunk.server_times))
    return chunk
