"""What is known of a session's prompts without making them: how long they are, and what they share with others.

In: a source and a session's number. Out: an `Outline`. A preview goes through ten thousands of them, so sources that
can tell without drawing every token do (`Outlining`); of the others the prompt is made and looked at. `Prefixes` then
says how much of a prompt a prefix cache that forgets nothing would hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import msgspec

from loadgen.workloads import Source


class Outline(msgspec.Struct, frozen=True):
    """The first turn of a session: its source, tokens in (None where they are not known before they are counted),
    tokens asked for, and the blocks that its prompt begins with, as (id, tokens): equal ids are equal tokens, of which
    a shorter block has the first ones. What follows the blocks is the prompt's own."""

    source: str
    in_tok: int | None
    ask_tok: int
    blocks: tuple[tuple[int, int], ...] = ()


@runtime_checkable
class Outlining(Protocol):
    """A source that can say what it would ask without making it."""

    def outline(self, index: int) -> Outline:
        """The outline of session ``index``: what holds of its first prompt."""


def outline_of(source: Source, index: int) -> Outline:
    """What is known of the first prompt of a session."""
    if isinstance(source, Outlining):
        return source.outline(index)
    prompt = source.session(index)[0]
    return Outline(prompt.source, prompt.in_tok_client, prompt.ask_tok)


class Prefixes:
    """The beginnings that were seen so far: what a prefix cache would hold that has room for all of them, and in which
    a prompt is as soon as it was asked. About 100 bytes a block."""

    def __init__(self) -> None:
        self._longest: dict[int, int] = {}

    def shared(self, blocks: Iterable[tuple[int, int]]) -> int:
        """How many tokens from its beginning on a prompt shares with one that was taken."""
        chain = shared = 0
        for block, tokens in blocks:
            chain = hash((chain, block))
            seen = self._longest.get(chain, 0)
            shared += min(tokens, seen)
            if seen < tokens:
                break
        return shared

    def take(self, blocks: Iterable[tuple[int, int]]) -> int:
        """The same, and the prompt is remembered."""
        blocks = tuple(blocks)
        shared, chain = self.shared(blocks), 0
        for block, tokens in blocks:
            chain = hash((chain, block))
            self._longest[chain] = max(tokens, self._longest.get(chain, 0))
        return shared


def hit(shared: int, in_tok: int, cache_block: int) -> int:
    """Tokens that a server takes from its cache of a prompt of which it has ``shared``: whole blocks, and never all of
    it, for the last token has to be computed to go on from it (as vLLM and SGLang do)."""
    return min(shared, in_tok - 1) // cache_block * cache_block
