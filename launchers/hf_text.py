"""Token ids -> text, one token at a time, for streams."""

from __future__ import annotations

from collections.abc import Callable

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONGEST = 4
"""Bytes in the longest UTF-8 character: a text that is still broken after so many tokens will not mend."""


class Detokenizer:
    """The text of a reply as its tokens come.

    A token's text may hang on the token before it (a space, a joined accent), so the text of a short tail of ids is
    decoded with and without the new one, and the difference is what the new one adds. A tail that ends inside a UTF-8
    character is held back until the character is whole, which makes the text of a token empty; bytes that cannot become
    a character go out as U+FFFD.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._said = 0  # of self._ids, the number whose text is out

    def add(self, token: int) -> str:
        """The text that this token brings out; "" while it is held back, and for marks such as the end of text."""
        self._ids.append(token)
        text = self._tail()
        if not text or (text.endswith(BROKEN) and len(self._ids) - self._said < LONGEST):
            return ""
        self._ids = self._ids[self._said :]  # the ids just said are the context of the next
        self._said = len(self._ids)
        return text

    def end(self) -> str:
        """What was held back when the reply ended."""
        return self._tail()

    def _tail(self) -> str:
        before = self._decode(self._ids[: self._said])
        return self._decode(self._ids)[len(before) :]
