"""What was understood is laid over the pieces that brought it, since a piece has one arrival and may hold many events.

In: pieces, the texts of the events in them, and where in all of the bytes these events end. Out: `Taken`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple


class Taken(NamedTuple):
    """What was understood: the first ``pieces`` pieces and ``rest`` bytes of the next; the text of each event; how many
    events end in each of these pieces, and in how many HTTP chunks they lie (None: one in each)."""

    pieces: int
    rest: int
    texts: Sequence[bytes]
    counts: Sequence[int] | None
    chunks: Sequence[int] | None


def laid_over(
    pieces: Sequence[bytes], texts: Sequence[bytes], joined: bytes, groups: Sequence[tuple[int, int, int]]
) -> Taken:
    """Lays the events of chunks over the pieces that bring their last bytes. A group is a chunk: how many events it
    holds, and where in the joined pieces its data start and stop."""
    edges = list(accumulate(map(len, pieces)))
    counts, chunks = [0] * len(pieces), [0] * len(pieces)
    number = 0
    for events, start, stop in groups:
        while edges[number] <= start:
            number += 1
        if stop <= edges[number]:
            counts[number] += events
            chunks[number] += 1
            continue
        lines = joined.count(b"\n", start, stop) // events  # of an event, the empty one with which it ends included
        ended = 0
        while ended < events:  # the chunk goes over several pieces
            until = joined.count(b"\n", start, min(edges[number], stop)) // lines
            counts[number] += until - ended
            chunks[number] += until > ended
            number, ended = number + (until < events), until
    taken = bisect_right(edges, stop + 2)
    rest = stop + 2 - (edges[taken - 1] if taken else 0)
    upto = taken + (rest > 0)
    return Taken(taken, rest, texts, counts[:upto], chunks[:upto])


def placed(pieces: Sequence[bytes], texts: Sequence[bytes], ends: list[int]) -> Taken | None:
    """Lays events with a chunk for each, which end at ``ends`` in the joined pieces, over the pieces that bring their
    last bytes."""
    if not ends:
        return None
    piece_ends = list(accumulate(map(len, pieces)))
    chunk_ends = [end + 2 for end in ends]
    if chunk_ends == piece_ends[: len(chunk_ends)]:
        return Taken(len(chunk_ends), 0, texts, None, None)
    taken = bisect_right(piece_ends, chunk_ends[-1])
    rest = chunk_ends[-1] - (piece_ends[taken - 1] if taken else 0)
    until = [0, *(bisect_right(ends, edge) for edge in piece_ends[: taken + (rest > 0)])]
    counts = [stop - start for start, stop in pairwise(until)]
    return Taken(taken, rest, texts, counts, counts)
