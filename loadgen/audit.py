"""What weakens a repeat (`doubts`) and what forbids trusting it (`invalid`), in full sentences with their numbers.

A doubt is printed beside the number; an invalid repeat says INVALID and is never averaged in. Most limits come from the
specification of the statistics (window and warm-up lengths, sample floors); those of the client's own conduct are here:
a client that is late or out of CPU measures itself and calls it the server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from loadgen.shown import brief
from loadgen.statistics import Sample, nearest_rank, rank
from loadgen.summary import Context, Doubt, Summary

MIN_WINDOW_S = 30.0
MIN_WARMUP_S = 10.0
LATE_LIMIT_S = 0.005
LATE_FLOOR_S = 0.001
LATE_OF_TTFT = 0.05
CPU_LIMIT = 0.85
SENT_LIMIT = 0.98
SKEW_LIMIT_S = 0.005
SKEW_OF_GAP = 0.1
_STEADY = 0.05
_COALESCED = 0.05
_IN_STEP = (3.0, 0.05)
_ONE_PHASE = (5.0, 0.10)
_LIVES = 10
_APART = 2
_LONGEST_SAID = 160
"""Characters of what a failed request was told; the record has 300."""

CODES = frozenset(
    (
        *("late", "late_once", "cpu", "one_phase", "in_step", "skew", "sends", "no_requests", "errors", "cut_off"),
        *("guessed_tokens", "unknown_tokens", "unknown_prompt_tokens", "lengths", "chunks", "whole_replies"),
        *("few_samples", "short_window", "short_warmup", "unsteady", "user_clock", "coalesced", "not_full"),
        *("cached", "repeated_prompts"),
    )
)
"""What this file can say; a doubt with another code is somebody else's."""


def late_limit(ttft_s: Sample, burst: bool = False) -> float:
    """The largest p99 send lateness in seconds that is let pass: 5 ms, or less where TTFT is short: 5 % of its median,
    but not less than 1 ms. Without any TTFT (whole replies) 5 ms. Of a ``burst``, which nobody can send in one instant,
    5 % of the median TTFT where that is more than 5 ms: its requests wait for each other far longer than for us."""
    if len(ttft_s) == 0:
        return LATE_LIMIT_S
    from loadgen.arrays import np

    part = LATE_OF_TTFT * nearest_rank(np.sort(np.asarray(ttft_s)), 0.5)
    return max(LATE_LIMIT_S, part) if burst else min(LATE_LIMIT_S, max(LATE_FLOOR_S, part))


def skew_limit(summary: Summary) -> float:
    """The most seconds by which workers may have started apart: 5 ms, or 10 % of the mean gap between requests where
    that is more, since the order of arrivals is then what it was meant to be."""
    gap = summary.window.length_s / summary.requests if summary.requests else 0.0
    return max(SKEW_LIMIT_S, SKEW_OF_GAP * gap)


def in_step(summary: Summary) -> tuple[float, float] | None:
    """By how much the tokens that arrived in the window differ from those of the replies that ended in it: in standard
    deviations, and as a share of the larger. None where this cannot be said.

    The difference is what requests in flight had done by the end of the window, less what they had done at its start.
    Where n requests of L tokens are at places of their own, uniform and independent, it has the standard deviation
    L sqrt(n / 6). More means that they are at the same place: they run in step, as when a server takes all prompts
    before it goes on with any reply, and a window of few lives of a request holds a phase and not a rate.
    """
    arrived, ended, length = summary.output_tok_s, summary.audit.ended_tok_s, summary.out_tok.mean
    if not arrived or not ended or not length or not summary.in_flight:
        return None
    sd = length * math.sqrt(summary.in_flight / 6) / summary.window.length_s
    return abs(arrived - ended) / sd, abs(arrived - ended) / max(arrived, ended)


def audited_p99(ordered: Sample) -> float | None:
    """The p99 that lateness is judged by: nearest rank, whatever the size of the sample; None under two values.

    Under 100 values the nearest rank is the maximum: one send of 30 would then condemn a repeat for what may be a
    single hiccup of the machine. There the second largest stands in; the largest alone is a doubt.
    """
    n = len(ordered)
    return None if n < 2 else float(ordered[min(rank(n, 0.99), n - 1) - 1])


def invalid(summary: Summary) -> tuple[Doubt, ...]:
    """Why the repeat cannot be trusted: the client was late, out of CPU, or sent less than it should."""
    return tuple(_invalid(summary))


def doubts(summary: Summary, context: Context) -> tuple[Doubt, ...]:
    """What weakens the numbers of this repeat, the gravest first."""
    if summary.requests == 0:
        text = "No request was measured: the window held no send. Make load.window_s longer than a request takes."
        return (Doubt("no_requests", text),)
    found = (*_failures(summary), *_tokens(summary, context), *_lengths(summary, context), *_client(summary, context))
    return (*found, *_prompts(summary, context))


def _invalid(summary: Summary) -> Iterator[Doubt]:
    audit = summary.audit
    if audit.late_p99_s is not None and audit.late_p99_s > audit.late_limit_s:
        yield Doubt(
            "late",
            f"The client sent late: {_ms(audit.late_p99_s)} at p99, the limit is {_ms(audit.late_limit_s)}. "
            "Use more workers or a lower load, or give the client cores of its own.",
        )
    for worker, share in enumerate(audit.worker_cpu):
        if share > CPU_LIMIT:
            yield Doubt(
                "cpu",
                f"Worker {worker} used {_percent(share)} of a core, the limit is {_percent(CPU_LIMIT)}: what it stamps "
                "may be its own delay. Use more workers or a lower load.",
            )
    if _beyond(summary, _ONE_PHASE):
        yield Doubt(
            "one_phase",
            f"{_in_step(summary)} The window holds one phase of it, and no rate: {_longer(summary)}",
        )
    if audit.skew_s is not None and audit.skew_s > skew_limit(summary):
        yield Doubt(
            "skew",
            f"The workers may have started {_ms(audit.skew_s)} apart, the limit is {_ms(skew_limit(summary))}: the "
            "clocks of their machines are not known better. Bring driver and nodes closer together.",
        )
    offered, achieved = audit.offered_rps, audit.achieved_rps
    if offered and achieved is not None and achieved < SENT_LIMIT * offered:
        yield Doubt(
            "sends",
            f"Only {brief(achieved)} of {brief(offered)} scheduled requests a second were sent inside the window "
            f"({_percent(achieved / offered)}, the limit is {_percent(SENT_LIMIT)}). {_why_unsent(summary)}",
        )


def _beyond(summary: Summary, limit: tuple[float, float]) -> bool:
    found = in_step(summary)
    return found is not None and found[0] > limit[0] and found[1] > limit[1]


def _in_step(summary: Summary) -> str:
    arrived, ended = summary.output_tok_s or 0.0, summary.audit.ended_tok_s or 0.0
    return (
        f"Requests ran in step: {brief(arrived)} output tok/s arrived in the window, the replies that ended in it make "
        f"{brief(ended)}."
    )


def _longer(summary: Summary) -> str:
    life = summary.e2e_s.mean or 0.0
    wanted, lasted = math.ceil(_LIVES * life), summary.window.length_s
    window = f"make load.window_s {wanted} s or more, {_LIVES} times what a request takes ({life:.2g} s)"
    if wanted <= lasted:
        window = f"make load.window_s longer than its {lasted:.3g} s; a request takes {life:.2g} s"
    if summary.audit.offered_rps is not None:  # an open loop has no slots that could start apart
        return f"{window}."
    return f"{window}; or load.ramp_s {math.ceil(_APART * life)} s, so that slots start apart and stay so."


def _why_unsent(summary: Summary) -> str:
    dropped = summary.status.get("dropped", 0)
    if dropped:
        return f"{dropped} were dropped at load.max_in_flight: raise it, or lower the rate to what the server can take."
    return "Use more workers or a lower rate."


def _failures(summary: Summary) -> Iterator[Doubt]:
    if summary.failed:
        kinds = sorted((kind for kind in summary.status.items() if kind[0] != "ok"), key=lambda kind: -kind[1])
        listed = ", ".join(f"{count:,} {status}" for status, count in kinds)
        rest = f"latencies come from the {summary.ok} others" if summary.ok else "there is nothing to measure"
        counted = f"{summary.failed:,} of {summary.requests:,} requests failed ({listed}): {rest}."
        yield Doubt("errors", f"{counted}{_one_of(kinds, summary)}")
    cancelled = summary.status.get("cancelled", 0)
    if cancelled and summary.ok:
        yield Doubt(
            "cut_off",
            f"{cancelled:,} request{'' if cancelled == 1 else 's'} had not ended when the drain did: the longest "
            "replies are missing from the latencies. A longer load.drain_s would hold them.",
        )


def _one_of(kinds: Sequence[tuple[str, int]], summary: Summary) -> str:
    """What one of the failed requests was told, of the most frequent status that says anything."""
    said = next(((status, texts[0]) for status, _ in kinds if (texts := summary.errors.get(status))), None)
    if said is None:
        return ""
    status, text = said
    text = f"{text.rstrip('.')}." if len(text) <= _LONGEST_SAID else f"{text[:_LONGEST_SAID]} ..."
    return f" One of them: {status}: {text.strip()}"


def _tokens(summary: Summary, context: Context) -> Iterator[Doubt]:
    guessed, unknown = summary.tok_source.get("tokenizer", 0), summary.tok_source.get("unknown", 0)
    if guessed:
        yield Doubt(
            "guessed_tokens",
            f"The output tokens of {guessed} of {summary.ok} replies were counted by a tokenizer, not by the server.",
        )
    if unknown:
        yield Doubt(
            "unknown_tokens",
            f"Nobody counted the output tokens of {unknown} of {summary.ok} replies: token rates are blank or too low.",
        )
    if summary.ok and summary.in_tok.n < summary.ok:
        yield Doubt(
            "unknown_prompt_tokens",
            f"The server did not say how many prompt tokens {summary.ok - summary.in_tok.n} of {summary.ok} requests "
            "had: total tok/s is blank.",
        )
    if summary.wrong_length:
        yield Doubt(
            "lengths",
            f"{summary.wrong_length} of {summary.ok} replies do not have the {context.exact_tok or 'number of'} tokens "
            f"asked for ({_tok(summary.out_tok.min)} to {_tok(summary.out_tok.max)}).",
        )
    per_chunk = summary.audit.tok_per_chunk
    if per_chunk is not None and per_chunk > 1.05:
        yield Doubt(
            "chunks", f"A chunk holds {per_chunk:.2f} tokens on average: chunk gaps and stalls are not those of tokens."
        )
    if not context.stream and summary.ok:
        yield Doubt(
            "whole_replies",
            "Replies came whole (stream: false): there is no TTFT or TPOT, and tokens count where replies end.",
        )


def _lengths(summary: Summary, context: Context) -> Iterator[Doubt]:
    from loadgen.sample import too_few  # not before: it loads numpy

    n, length, warmup = summary.ok, summary.window.length_s, summary.window.w0
    if n and (few := too_few(n, None if context.burst else length)):
        yield Doubt("few_samples", few)
    if length < MIN_WINDOW_S:
        yield Doubt("short_window", f"The window lasted {length:.3g} s, less than {MIN_WINDOW_S:.0f} s.")
    ended, wanted = sum(summary.warmup_status.values()), 2 * (context.concurrency or 0)
    if warmup < MIN_WARMUP_S:
        yield Doubt("short_warmup", f"Warm-up lasted {warmup:.3g} s, less than {MIN_WARMUP_S:.0f} s.")
    elif ended < wanted:
        yield Doubt("short_warmup", f"{ended} requests ended in warm-up, fewer than twice the concurrency ({wanted}).")
    if _beyond(summary, _IN_STEP) and not _beyond(summary, _ONE_PHASE):
        yield Doubt("in_step", f"{_in_step(summary)} For less of a difference, {_longer(summary)}")
    change = summary.audit.warmup_change
    if change is not None and change >= _STEADY:
        yield Doubt("unsteady", f"Output tok/s still changed by {_percent(change)} over the last two 5 s of warm-up.")


def _client(summary: Summary, context: Context) -> Iterator[Doubt]:
    audit, late = summary.audit, summary.audit.late_s
    if late.n < 100 and late.max is not None and (audit.late_p99_s or 0.0) <= audit.late_limit_s < late.max:
        worst, limit = _ms(late.max), _ms(audit.late_limit_s)
        yield Doubt("late_once", f"The latest send came {worst} after its time; the limit for the p99 is {limit}.")
    stamped = sum(audit.clocks.values())
    user = audit.clocks.get("user", 0)
    if user:
        yield Doubt(
            "user_clock",
            f"{user} of {stamped} requests were stamped when this program read them, not when the kernel got them.",
        )
    merged = audit.coalesced_share
    if merged is not None and merged > _COALESCED:
        yield Doubt("coalesced", f"{_percent(merged)} of the chunks came merged with later ones and bear their stamp.")
    held, asked = summary.in_flight, context.concurrency
    if asked and held is not None and held < 0.9 * asked and not context.conversations:
        yield Doubt("not_full", f"{held:.3g} requests were in flight on average, not the {asked} of the concurrency.")


def _prompts(summary: Summary, context: Context) -> Iterator[Doubt]:
    asked = f"{summary.requests:,} requests asked {summary.prompts or 0:,} different prompts"
    repeated = summary.prompts is not None and summary.prompts < summary.requests
    if summary.cached_share:
        yield Doubt(
            "cached", f"{_percent(summary.cached_share)} of the prompt tokens came from the server's prefix cache."
        )
    elif repeated and summary.cached_share is None and context.prefix_cache is None:
        yield Doubt("repeated_prompts", f"{asked}; nobody knows whether the server has them in a prefix cache.")
    elif repeated and summary.cached_share is None and context.prefix_cache:
        yield Doubt("repeated_prompts", f"{asked}, and the server's prefix cache is on: TTFT may be that of the cache.")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _tok(count: float | None) -> str:
    return "?" if count is None else f"{count:.0f}"
