"""What every reader of a foreign result hands over: `Measured`, and the ways from it to a `Summary`.

In: records where the tool kept single requests (`from_records`, by the normal `summarise`), else the tool's own figures
(`from_figures`, with None for what they do not say). Out: a `Summary` that carries the doubts of its origin. What only
the client itself can know (how late it sent, how long bytes waited for it) stays None: another tool did not keep it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loadgen.audit import doubts, invalid, late_limit
from loadgen.metrics import METRICS, PERCENTILES
from loadgen.record import Record
from loadgen.statistics import floor_of
from loadgen.summarise import summarise
from loadgen.summary import Audit, Context, Distribution, Doubt, Summary, Window

ABOUT_OUR_CLIENT = frozenset({"user_clock", "late_once"})
"""Doubts that speak of this program's own conduct."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Who measured. ``version`` is None where the file does not say it; ``layout`` is what was seen of its format.
    ``definitions`` are the tool's own, by our names of metrics, as they stand in the code of version ``read_in``."""

    tool: str
    version: str | None
    layout: str
    read_in: str
    definitions: dict[str, str]

    @property
    def name(self) -> str:
        """``AIPerf 0.13.0``, or that the version is not known."""
        return f"{self.tool} {self.version}" if self.version else f"{self.tool} (version unknown)"

    def doubts(self) -> Iterator[Doubt]:
        """That another version may define its numbers in another way."""
        if self.version != self.read_in:
            yield Doubt(
                "imported_version",
                f"Where {self.tool}'s definitions differ was read in the code of version {self.read_in}; "
                f"{'that of this file is not known' if self.version is None else f'this file is of {self.version}'}.",
            )


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat that another tool measured.

    ``axes`` place it in a matrix; results with equal axes are repeats of one cell. ``target`` holds what is known of
    the target by the scenario's words, ``load`` of the load. ``started`` is UTC where the tool says so, '' where not.
    With ``records``, times are seconds from the first send and ``window`` is what the tool divided by; without them
    ``summary`` was made of the tool's figures. ``schedule`` is True where ``t_sched`` is the tool's own. ``worded``
    holds the codes of doubts that the reader of the format words better.
    """

    origin: Origin
    source: str
    axes: dict[str, Any]
    target: dict[str, Any]
    load: dict[str, Any]
    started: str
    window: Window
    context: Context
    records: Iterable[Record] | None = None
    summary: Summary | None = None
    schedule: bool = False
    worded: frozenset[str] = frozenset()


def from_records(records: Iterable[Record], measured: Measured) -> Summary:
    """The summary of a repeat whose requests were kept."""
    summary = summarise(records, measured.window, measured.context)
    blank: dict[str, Any] = {"lag_s": Distribution(n=0), "coalesced_share": None}
    if not measured.schedule:
        blank |= {"late_s": Distribution(n=0), "late_p99_s": None, "offered_rps": None, "achieved_rps": None}
        summary = msgspec.structs.replace(summary, ttft_from_schedule_s=Distribution(n=0))
    audit = msgspec.structs.replace(summary.audit, **blank)
    return _judged(msgspec.structs.replace(summary, audit=audit), summary.doubts, measured.worded)


def from_figures(
    window: Window,
    context: Context,
    status: Mapping[str, int],
    figures: Mapping[str, float | int | None],
    distributions: Mapping[str, Distribution],
) -> Summary:
    """The summary of a repeat of which only the tool's figures are left. ``figures`` are fields of `Summary`; those
    that are not there are None, and distributions that are not there are empty."""
    requests, ok = sum(status.values()), status.get("ok", 0)
    held: dict[str, Any] = dict.fromkeys(
        ("request_rps", "output_tok_s", "total_tok_s", "goodput_rps", "in_flight", "in_tok_sum", "out_tok_sum")
    )
    held |= {metric.name: Distribution(n=0) for metric in METRICS.values() if metric.per != "window"}
    held |= {**figures, **distributions}
    summary = Summary(
        state="ok",
        window=window,
        requests=requests,
        sent=requests,
        ok=ok,
        failed=requests - ok,
        status={name: count for name, count in status.items() if count},
        warmup_status={},
        finish={},
        tok_source={},
        errors={},
        error_rate=(requests - ok) / requests if requests else None,
        failed_tok=0,
        wrong_length=None,
        prompts=None,
        cached_share=None,
        audit=_unknown_audit(),
        **held,
    )
    return _judged(summary, (*context.doubts, *doubts(summary, context)), frozenset({"unknown_prompt_tokens"}))


def _unknown_audit() -> Audit:
    return Audit(
        late_s=Distribution(n=0),
        late_p99_s=None,
        late_limit_s=late_limit([]),
        lag_s=Distribution(n=0),
        offered_rps=None,
        achieved_rps=None,
        worker_cpu=(),
        clocks={},
        coalesced_share=None,
        tok_per_chunk=None,
        warmup_change=None,
    )


def _judged(summary: Summary, said: Sequence[Doubt], worded: frozenset[str]) -> Summary:
    """The summary with its doubts. What would forbid trusting a repeat of our own is a doubt here: the tool did not
    promise to keep our limits."""
    strict = [
        Doubt(f"imported_{found.code}", f"A repeat of loadgen's own would be invalid: {found.text}")
        for found in invalid(summary)
    ]
    kept = [doubt for doubt in said if doubt.code not in ABOUT_OUR_CLIENT | worded]
    return msgspec.structs.replace(summary, state="ok" if summary.ok else "failed", invalid=(), doubts=(*kept, *strict))


def distribution(n: int, values: Mapping[str, float | None], scale: float = 1.0) -> Distribution:
    """A distribution of which only some statistics are known, each times ``scale``. Percentiles below their sample
    floor stay None. A standard deviation over n (not n - 1) is to be given as ``population_sd``."""
    found = {name: value * scale for name, value in values.items() if value is not None}
    spread = found.pop("population_sd", None)
    if spread is not None and n > 1:
        found["sd"] = spread * (n / (n - 1)) ** 0.5
    kept: dict[str, Any] = {
        name.replace(".", "_"): value
        for name, value in found.items()
        if name not in PERCENTILES or n >= floor_of(PERCENTILES[name])
    }
    return Distribution(n=n, **kept) if n else Distribution(n=0)


def of_values(values: Sequence[float]) -> Distribution:
    """The distribution of values that were kept one by one, in no order of time."""
    import numpy as np

    from loadgen.sample import distribution as sampled

    return sampled(np.array(values, dtype=np.float64))


def target_of(model: str | None, endpoint: str | None, protocol: str | None) -> dict[str, Any]:
    """What is known of a target by the words of a scenario; an endpoint that is no URL is left out."""
    try:
        known = endpoint is not None and urlsplit(endpoint).scheme in ("http", "https", "unix")
    except ValueError:
        known = False
    backend = next((ours for ours, theirs in _PROTOCOLS if protocol in theirs), None)
    return {"model": model, "endpoint": endpoint if known else None, "backend": backend}


def load_of(axes: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """The load by the words of a scenario; ``kind`` is the tool's word for how requests arrive."""
    arrival = {"async": "constant"}.get(kind or "", kind)
    return {**axes, **({"arrival": arrival} if arrival in ("constant", "gamma") and "rate_rps" in axes else {})}


def status_of(error: str, code: int | None = None) -> str:
    """Our name for a failure that a tool tells of in words of its own; ``http_error`` where they fit nothing else."""
    if code is not None:
        return "rate_limited" if code == 429 else "cancelled" if code == 499 else "http_error"
    for status, words in _WORDS:
        if any(word in error.lower() for word in words):
            return status
    return "malformed" if re.search(r"[a-z](Error|Exception)\b", error) else "http_error"


_PROTOCOLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("openai_chat", ("openai-chat", "chat", "/v1/chat/completions")),
    ("openai_completions", ("openai", "vllm", "completions", "/v1/completions")),
)
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("http_error", ("httpstatuserror",)),
    ("rate_limited", ("too many requests",)),
    ("timeout", ("timeout", "timed out")),
    ("connect_error", ("clientconnector", "connecterror", "cannot connect", "connection refused")),
    ("truncated", ("payload is not completed", "incomplete chunked read", "incompleteread")),
    ("reset", ("connection reset", "serverdisconnected", "readerror", "peer closed")),
    ("cancelled", ("cancelled",)),
    ("error_event", ("returned an error", "sseresponseerror")),
    ("empty", ("never received a valid chunk", "no responses with actual content")),
)
