"""The single requests of a result of ``vllm bench serve --save-detailed`` as records, one at a time.

In: the fields of the result, parallel lists with an entry a request. Out: an iterator of `Record`, and what can be said
of all of them beforehand. The gaps of a request, most of the file, stay JSON until their record is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from loadgen.importing.fields import Fields, seconds, tokens
from loadgen.importing.measured import status_of
from loadgen.metrics import tpot
from loadgen.record import Record

TOOL = "vllm bench serve"
LISTS = ("start_times", "ttfts", "itls", "input_lens", "output_lens")


class Requests(NamedTuple):
    """The lists of a result. Starts are seconds of a clock of the client, ends are latencies (0 for a failure)."""

    where: str
    starts: list[float]
    ttfts: list[float]
    gaps: list[msgspec.Raw]
    in_lens: list[int]
    out_lens: list[int]
    ends: list[float]
    errors: list[str]

    @property
    def last_s(self) -> float:
        """Seconds from the first send to the end of the last reply."""
        return max(start + end for start, end in zip(self.starts, self.ends, strict=True)) - min(self.starts)

    def early_chunks(self) -> tuple[int, int]:
        """(replies with at least two chunks more than tokens, replies). Where a chunk holds one token, one more is the
        finish chunk; two more mean that a chunk without a token came first."""
        ok = [i for i, out_len in enumerate(self.out_lens) if out_len and not self.errors[i]]
        return sum(_chunks(self.gaps[i]) >= self.out_lens[i] + 2 for i in ok), len(ok)

    def records(self) -> Iterator[Record]:
        """One record a request, in the order of the file. Raises UsageError for what is no time or count."""
        first = min(self.starts)
        for i, start in enumerate(self.starts):
            yield self._record(i, seconds(start - first, f"{self.where}: request {i}: start") or 0.0)

    def _record(self, i: int, sent: float) -> Record:
        where, error, ttft = f"{self.where}: request {i}", self.errors[i], self.ttfts[i]
        arrivals = itertools.accumulate([ttft, *_decoded(self.gaps[i], where)])
        stamps = [seconds(at, f"{where}: ttft and itls") or 0.0 for at in arrivals]
        e2e, out_tok = seconds(self.ends[i], f"{where}: latency") or 0.0, tokens(self.out_lens[i], where)
        common: dict[str, Any] = {
            "driver": TOOL,
            "seq": i,
            "session": i,
            "source": "imported",
            "phase": "measure",
            "t_sched": sent,
            "t_send": sent,
            "in_tok": tokens(self.in_lens[i], where),
        }
        if error or not (ttft or e2e):
            last_line = error.strip().rpartition("\n")[2][:500]
            return Record(**common, t_end=sent + stamps[-1], status=status_of(error), err=last_line or "no reply")
        return Record(
            **common,
            t_first=sent + ttft,
            t_last=sent + e2e,
            t_end=sent + e2e,
            ttft_s=ttft,
            tpot_s=tpot(ttft, e2e, out_tok),
            e2e_s=e2e,
            chunk_us=[round(at * 1e6) for at in stamps],
            out_tok=out_tok,
            status="ok",
            http=200,
        )


def requests_of(fields: Fields) -> Requests | None:
    """The requests of a result, None where it does not hold them. Raises UsageError for lists of different lengths."""
    if not all(fields.get(name, list[Any]) for name in LISTS):
        return None
    starts, ttfts = fields.need("start_times", list[float]), fields.need("ttfts", list[float])
    gaps = fields.need("itls", list[msgspec.Raw])
    ends = fields.get("latencies", list[float])
    if ends is None:  # older versions: the sum of what is there
        rows = (_decoded(row, fields.where) for row in gaps)
        ends = [ttft + sum(row) for ttft, row in zip(ttfts, rows, strict=False)]
    found = Requests(
        where=fields.where,
        starts=starts,
        ttfts=ttfts,
        gaps=gaps,
        in_lens=fields.need("input_lens", list[int]),
        out_lens=fields.need("output_lens", list[int]),
        ends=ends,
        errors=fields.get("errors", list[str]) or [""] * len(starts),
    )
    lengths = [len(one) for one in found[1:]]
    if len(set(lengths)) > 1:
        raise fields.wrong(f"its lists have {', '.join(map(str, lengths))} entries")
    return found


def _decoded(row: msgspec.Raw, where: str) -> list[float]:
    return Fields({"itls": row}, where).get("itls", list[float]) or []


def _chunks(row: msgspec.Raw) -> int:
    """Chunks of a reply, from its gaps: one more than there are."""
    text = bytes(row).strip(b"[] \n")
    return text.count(b",") + 2 if text else 1
