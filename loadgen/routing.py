"""Do a mixture's experts answer to what is asked? One cell on three kinds of prompts, and what they differ by.

In: the repeats of one cell on natural, single-domain and random prompts, by target. Out: for output tok/s and TPOT the
largest over the smallest of the three (the spread), per target, and by how much more the candidate's depends on the
prompts than the baseline's.

A router sends tokens where they belong, so that the prompts decide how many experts a step reads and how evenly they
are loaded. A dense model does the same work for every token: what its rates change by between the kinds is their
lengths, and the noise. Only what a mixture changes by beyond that is routing. The prompts are short beside the replies
of most scenarios, so the check is mostly about decoding; the mean input lengths are stated, because the kinds' are not
quite the same.

The kinds of a repeat ran on one server with one seed: they are pairs. Which kind is the largest is found in the same
values that are tested, so "depends" is Holm's word over all pairs of kinds, not that of the one interval. These cells
take no part in verdicts, their family, or crossings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import msgspec

from loadgen.metrics import Measure
from loadgen.shown import brief
from loadgen.statistics import Ratio, holm, ratio_paired
from loadgen.summary import Summary

DOMAIN = "code"
"""The tag of the shipped prompts that stands for a single domain."""

RANDOM_WORDS = 72
"""Words of a random prompt: about as many tokens as the mean of the shipped prompts."""

KINDS = ("natural", DOMAIN, "random")
"""The kinds of prompts, as they are called in cells and reports."""

COARSE = 0.05
"""Half the width of an interval, on the logarithm, above which the absence of a difference says nothing."""

MEASURES = (Measure("output_tok_s"), Measure("tpot_s", "p50"))

Kinds = Mapping[str, Sequence[Summary | None]]
"""Repeats by kind of prompts; entry i of all of them ran on one server, None where it is missing."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of one target over the kinds of prompts that have it.

    ``values`` are those per repeat, ``input_tokens`` their mean prompt lengths. ``ratio`` is ``high``'s value over
    ``low``'s. ``depends`` is whether that pair differs, with Holm's procedure at 5 % over all pairs of kinds; None
    where the repeats are too few to say.
    """

    target: str
    measure: str
    label: str
    values: dict[str, tuple[float | None, ...]]
    input_tokens: dict[str, float | None]
    low: str
    high: str
    ratio: Ratio
    depends: bool | None
    sentence: str


class Excess(msgspec.Struct, frozen=True, kw_only=True):
    """By how much more a candidate's measure changes between two kinds of prompts than its baseline's does.

    ``ratio`` is (candidate at ``high`` / at ``low``) / (baseline at ``high`` / at ``low``); the kinds are those of the
    candidate's spread.
    """

    baseline: str
    candidate: str
    measure: str
    low: str
    high: str
    ratio: Ratio
    sentence: str


class RoutingCheck(msgspec.Struct, frozen=True, kw_only=True):
    """All spreads, target by target, and the excesses of every comparison. ``cell`` is the one that was repeated."""

    cell: str
    spreads: tuple[Spread, ...]
    excesses: tuple[Excess, ...] = ()


def routing_check(cell: str, targets: Mapping[str, Kinds], contrasts: Sequence[tuple[str, str]]) -> RoutingCheck | None:
    """What the kinds of prompts come to. ``contrasts`` are pairs of (baseline, candidate).

    None where no target has a measure on two kinds; invalid and failed repeats count as missing.
    """
    valid = {target: {kind: _valid(repeats) for kind, repeats in kinds.items()} for target, kinds in targets.items()}
    spreads = [found for target in valid for what in MEASURES if (found := _spread(target, valid[target], what))]
    if not spreads:
        return None
    by_place = {(spread.target, spread.measure): spread for spread in spreads}
    return RoutingCheck(cell=cell, spreads=tuple(spreads), excesses=tuple(_excesses(by_place, contrasts)))


def _valid(repeats: Sequence[Summary | None]) -> tuple[Summary | None, ...]:
    return tuple(repeat if repeat is not None and repeat.state == "ok" else None for repeat in repeats)


def _spread(target: str, kinds: Kinds, what: Measure) -> Spread | None:
    values = {kind: tuple(s.get(what) if s else None for s in repeats) for kind, repeats in kinds.items()}
    means = {kind: mean for kind, found in values.items() if (mean := _mean(found))}
    if len(means) < 2:
        return None
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if low == high:  # all of them are the same
        low, high = list(means)[:2]
    ratio = _between(values, low, high)
    if ratio is None:
        return None
    tokens = {kind: _mean([s.in_tok.mean if s else None for s in repeats]) for kind, repeats in kinds.items()}
    depends = _depends(values, means, (low, high))
    told = ", ".join(f"{kind} {_number(mean, what)}{_tokens(tokens[kind])}" for kind, mean in means.items())
    return Spread(
        target=target,
        measure=str(what),
        label=what.label,
        values=values,
        input_tokens=tokens,
        low=low,
        high=high,
        ratio=ratio,
        depends=depends,
        sentence=f"{target}, {what.label}: {told}; largest over smallest {_ratio(ratio)}{_word(ratio, depends)}",
    )


def _between(values: Mapping[str, Sequence[float | None]], low: str, high: str) -> Ratio | None:
    both = [(a, b) for a, b in zip(values[low], values[high], strict=False) if a and b]
    return ratio_paired([a for a, _ in both], [b for _, b in both]) if both else None


def _depends(
    values: Mapping[str, Sequence[float | None]], kinds: Sequence[str] | Mapping[str, float], widest: tuple[str, str]
) -> bool | None:
    """Holm's word on the widest pair, over the family of all pairs; None where a pair has no p value."""
    pairs = list(combinations(kinds, 2))
    found = [_between(values, *pair) for pair in pairs]
    p_values = [ratio.p for ratio in found if ratio is not None and ratio.p is not None]
    if len(p_values) < len(pairs):
        return None
    return next(no for pair, no in zip(pairs, holm(p_values), strict=True) if set(pair) == set(widest))


def _excesses(spreads: Mapping[tuple[str, str], Spread], contrasts: Sequence[tuple[str, str]]) -> Iterator[Excess]:
    for (baseline, candidate), what in ((pair, str(measure)) for pair in contrasts for measure in MEASURES):
        if (baseline, what) not in spreads or (candidate, what) not in spreads:
            continue
        theirs, ours = spreads[baseline, what], spreads[candidate, what]
        low, high = ours.low, ours.high
        if low not in theirs.values or high not in theirs.values:
            continue
        sides = zip(
            *(side.values[kind] for side, kind in ((theirs, low), (theirs, high), (ours, low), (ours, high))),
            strict=False,
        )
        whole = [(b / a, d / c) for a, b, c, d in sides if a and b and c and d]
        if not whole:
            continue
        ratio = ratio_paired([one for one, _ in whole], [other for _, other in whole])
        yield Excess(
            baseline=baseline,
            candidate=candidate,
            measure=what,
            low=low,
            high=high,
            ratio=ratio,
            sentence=_excess_sentence((baseline, candidate), ours, ratio),
        )


def _excess_sentence(names: tuple[str, str], spread: Spread, ratio: Ratio) -> str:
    baseline, candidate = names
    claim = (
        f"from {spread.low} to {spread.high} prompts the {spread.label} of {candidate} grows {_ratio(ratio)} times as "
        f"much as that of {baseline}"
    )
    if ratio.low is None or ratio.high is None:
        return claim
    if ratio.low > 1:
        return f"{claim}: the prompts decide how its experts are loaded, and a verdict on one kind holds for that kind"
    if ratio.high < 1:
        return f"{claim}: less, so the lengths of the prompts or the machine decide, not the experts"
    return f"{claim}: {_unseen(ratio, 'routing is not seen to matter here')}"


def _word(ratio: Ratio, depends: bool | None) -> str:
    if depends is None:
        return ""
    return ": it depends on the prompts" if depends else f": {_unseen(ratio, 'no dependence seen')}"


def _unseen(ratio: Ratio, nothing: str) -> str:
    """What an interval around 1 says: nothing was seen, if something could have been."""
    coarse = ratio.half_width is None or ratio.half_width > COARSE
    return f"the interval is wider than {COARSE * 100:.0f} % each way, too wide to say" if coarse else nothing


def _ratio(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3f} ({ratio.why})"
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _tokens(mean: float | None) -> str:
    return "" if mean is None else f" ({mean:.0f} tokens in)"


def _number(value: float, what: Measure) -> str:
    return f"{brief(value * 1e3)} ms" if what.metric.endswith("_s") and what.statistic else brief(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
