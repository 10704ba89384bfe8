"""Summaries of two targets, cell by cell -> `Comparison`: ratios with intervals, verdicts, crossings, sentences.

In: for every cell the repeats of both sides as pairs. Out: structs that reports print as they are. The order of the
questions is fixed: is a side invalid? is the comparison fair? what is the ratio? which cells differ, all of them taken
together? and only then, where along the axis does the better side change? The statistics are in ``statistics.py``, the
looking for crossings in ``crossing.py`` and ``equal.py``, the words in ``sentence.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from loadgen.comparing.comparison import CellPairs, Compared, ComparedCell, Comparison, Crossings, Settings, Sides
from loadgen.comparing.crossing import crossings
from loadgen.comparing.equal import equal_crossings
from loadgen.comparing.phase import phase_doubt
from loadgen.comparing.sentence import cell_name, sentence
from loadgen.metrics import METRICS, Measure, find, margin, measure
from loadgen.shown import brief
from loadgen.statistics import MIN_REPEATS, Ratio, Verdict, holm, ratio_paired, ratio_welch, repeats_needed, verdict
from loadgen.summary import Doubt, Summary

MAX_ERROR_RATE = 0.01
MAX_ERROR_DIFFERENCE = 0.005
MAX_LENGTH_DIFFERENCE = 0.01
MAX_CACHED_DIFFERENCE = 0.01
MOST_REASONS = 3


def compare(cells: Sequence[CellPairs], settings: Settings | None = None) -> Comparison:
    """The comparison of every cell's candidate with its baseline.

    Verdicts are about the primary measure, and Holm's family is all cells that have an interval in it. Raises
    UsageError for a measure that does not exist.
    """
    settings = settings or Settings()
    first = [_cell(cell, settings) for cell in cells]
    tested = [i for i, cell in enumerate(first) if cell.primary.ratio is not None and cell.primary.ratio.p is not None]
    rejected = dict(zip(tested, holm([_p(first[i]) for i in tested]), strict=True))
    done = [_judged(cell, rejected.get(i, False)) for i, cell in enumerate(first)]
    found = (*crossings(done, settings.axis), *equal_crossings(done, settings.axis)) if settings.axis else ()
    return Comparison(
        primary=str(measure(settings.primary)),
        scope=settings.scope,
        cells=tuple(done),
        crossings=found,
        notes=(*_notes(settings, len(tested)), *_notes_on_equal(found)),
    )


def _cell(cell: CellPairs, settings: Settings) -> ComparedCell:
    """The cell with its ratios; verdicts that need no statistics (invalid, not comparable) are already there."""
    measures = [measure(words) for words in dict.fromkeys((settings.primary, *settings.secondary))]
    compared = {str(what): _compare(cell, what, settings) for what in measures}
    primary, user = compared.pop(str(measures[0])), Measure("decode_tok_s", "p50")
    return ComparedCell(
        cell=cell.cell,
        axes=cell.axes,
        baseline=cell.baseline,
        candidate=cell.candidate,
        primary=primary,
        secondary=compared,
        batch_seen=cell.batch_seen,
        user_tok_s=Sides(_values(cell.baseline_repeats, user), _values(cell.candidate_repeats, user)),
        gpus=cell.gpus,
        doubts=tuple(_doubts(cell, primary)),
    )


def _compare(cell: CellPairs, what: Measure, settings: Settings) -> Compared:
    refused, why = _refused(cell, what)
    before, after = _values(cell.baseline_repeats, what), _values(cell.candidate_repeats, what)
    ratio = None if refused is Verdict.INVALID else _ratio(before, after, cell.paired)
    if ratio is None and why is None:
        why = _no_ratio(cell, what)
    return Compared(
        measure=str(what),
        label=what.label,
        better=METRICS[what.metric].better,
        margin=_margin(what, settings),
        baseline_values=before,
        candidate_values=after,
        ratio=ratio if refused is None else None,
        verdict=refused,
        why=why,
    )


def _values(repeats: Sequence[Summary | None], what: Measure) -> tuple[float | None, ...]:
    return tuple(None if repeat is None else repeat.get(what) for repeat in repeats)


def _margin(what: Measure, settings: Settings) -> float:
    """The margin of these very words (``p99 ttft``), else of the whole metric (``ttft``), else the default."""
    for words, value in settings.margins.items():
        if " " in words and measure(words) == what:
            return value
    for words, value in settings.margins.items():
        if " " not in words and find(words).name == what.metric:
            return value
    return margin(what)


def _ratio(before: Sequence[float | None], after: Sequence[float | None], paired: bool) -> Ratio | None:
    """The ratio over what is there. A pair with one side missing is left out whole: it has no difference."""
    if paired:
        both = [(a, b) for a, b in zip(before, after, strict=True) if a and b]
        return ratio_paired([a for a, _ in both], [b for _, b in both]) if both else None
    a_values, b_values = [a for a in before if a], [b for b in after if b]
    return ratio_welch(a_values, b_values) if a_values and b_values else None


def _refused(cell: CellPairs, what: Measure) -> tuple[Verdict | None, str | None]:
    """Invalid and not comparable, with the reason; (None, None) for a measure that may be compared."""
    for name, repeats in ((cell.baseline, cell.baseline_repeats), (cell.candidate, cell.candidate_repeats)):
        for number, repeat in enumerate(repeats, 1):
            if repeat is not None and repeat.state != "ok":
                why = repeat.invalid[0].text if repeat.invalid else "no request succeeded"
                return Verdict.INVALID, f"repeat {number} of {name} is {repeat.state}: {why}"
    reasons = [*cell.differences, *_unfair(cell, what)]
    if not reasons:
        return None, None
    more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return Verdict.NOT_COMPARABLE, "; ".join(reasons[:MOST_REASONS]) + more


def _unfair(cell: CellPairs, what: Measure) -> Iterator[str]:
    """What the summaries themselves say against comparing: errors, and lengths that the measure depends on."""
    rates = [_mean(_values(side, Measure("error_rate"))) for side in (cell.baseline_repeats, cell.candidate_repeats)]
    names = (cell.baseline, cell.candidate)
    if rates[0] is not None and rates[1] is not None:
        for name, rate in zip(names, rates, strict=True):
            if rate is not None and rate >= MAX_ERROR_RATE:
                yield f"{rate * 100:.3g} % of the requests to {name} failed, the limit is {MAX_ERROR_RATE * 100:.0f} %"
        if abs(rates[0] - rates[1]) > MAX_ERROR_DIFFERENCE:
            yield f"{rates[0] * 100:.3g} % and {rates[1] * 100:.3g} % of the requests failed, over 0.5 points apart"
    for tokens in METRICS[what.metric].lengths:
        mean = Measure(tokens, "mean")
        a, b = (_mean(_values(side, mean)) for side in (cell.baseline_repeats, cell.candidate_repeats))
        if a and b and abs(b / a - 1) > MAX_LENGTH_DIFFERENCE:
            yield (
                f"{what.label} depends on the length of {'prompts' if tokens == 'in_tok' else 'replies'}, and they had "
                f"{brief(a)} tokens with {names[0]} and {brief(b)} with {names[1]}"
            )
    yield from _unequally_warm(cell, what)


def _unequally_warm(cell: CellPairs, what: Measure) -> Iterator[str]:
    """A prefix cache spares prefill, and so changes whatever prefill is a part of."""
    a, b = _mean(cell.cached.baseline), _mean(cell.cached.candidate)
    of_prefill = "in_tok" in METRICS[what.metric].lengths or what.metric == "output_tok_s"
    if of_prefill and a is not None and b is not None and abs(a - b) > MAX_CACHED_DIFFERENCE:
        shares = f"{a * 100:.3g} % for {cell.baseline} and {b * 100:.3g} % for {cell.candidate}"
        yield f"the share of prompt tokens that came from a prefix cache is {shares}"


def _no_ratio(cell: CellPairs, what: Measure) -> str:
    sides = (*cell.baseline_repeats, *cell.candidate_repeats)
    values = [repeat.get(what) for repeat in sides if repeat is not None]
    if not values:
        return "no repeat was measured"
    if any(value == 0 for value in values):
        return f"{what.label} is zero on a side, and zero has no ratio"
    return f"{what.label} is blank: there are too few samples, or none"


def _judged(cell: ComparedCell, rejected: bool) -> ComparedCell:
    """The cell with the verdict of its primary measure and the sentences of all."""
    primary = cell.primary
    if primary.verdict is None:
        primary = _with_verdict(primary, rejected)
    secondary = {name: _worded(cell, compared) for name, compared in cell.secondary.items()}
    return msgspec.structs.replace(cell, primary=_worded(cell, primary), secondary=secondary)


def _with_verdict(compared: Compared, rejected: bool) -> Compared:
    if compared.ratio is None:
        return msgspec.structs.replace(compared, verdict=Verdict.INCONCLUSIVE)
    found = verdict(compared.ratio, compared.margin, rejected, compared.better != "lower")
    needed = repeats_needed(compared.ratio, compared.margin) if found is Verdict.INCONCLUSIVE else None
    return msgspec.structs.replace(compared, verdict=found, repeats_needed=needed)


def _worded(cell: ComparedCell, compared: Compared) -> Compared:
    return msgspec.structs.replace(compared, sentence=sentence(cell, compared))


def _doubts(cell: CellPairs, primary: Compared) -> Iterator[Doubt]:
    yield from cell.doubts
    where = cell_name(cell.axes)
    n = primary.ratio.n if primary.ratio is not None else 0
    if not cell.paired:
        yield Doubt(
            "not_interleaved",
            f"{cell.candidate} and {cell.baseline}{where} were not interleaved: the interval does not hold what "
            "changed on the machine between them.",
        )
    elif n >= MIN_REPEATS and n % 2:
        yield Doubt(
            "half_block",
            f"{n} pairs{where} leave half an ABBA block: a drift of the machine is not fully cancelled.",
        )
    if primary.ratio is not None:
        a, b = ([one for one in side if one is not None] for side in (cell.baseline_repeats, cell.candidate_repeats))
        known = primary.ratio.half_width, primary.margin
        found = phase_doubt(measure(primary.measure).metric, known, (a, b), where)
        yield from (found,) if found is not None else ()
    repeats = (*cell.baseline_repeats, *cell.candidate_repeats)
    missing = sum(repeat is None for repeat in repeats)
    if missing:
        yield Doubt(
            "missing",
            f"{missing} repeats{where} are missing; their pairs are left out."
            if missing > 1
            else f"1 repeat{where} is missing; its pair is left out.",
        )
    values = (*primary.baseline_values, *primary.candidate_values)
    blank = sum(repeat is not None and not value for repeat, value in zip(repeats, values, strict=True))
    if blank and primary.ratio is not None:
        yield Doubt("blank", f"{blank} repeats{where} have no {primary.label}; their pairs are left out.")


def _notes(settings: Settings, family: int) -> Iterator[str]:
    if family:
        yield "Intervals are 95 % each, not jointly."
    if family > 1:
        yield f"Holm's procedure at 5 % over {family} cells decides which cells are called different."
    if settings.scope == "instance":
        yield "Repeats ran on one instance of each server: the intervals do not hold what a restart changes."
    if settings.sequential:
        yield "Sequential: repeats were added until the interval was narrow enough; it covers slightly less than 95 %."


def _notes_on_equal(found: Sequence[Crossings]) -> Iterator[str]:
    if any(one.equal for one in found):
        yield (
            "Equal batches are those that the servers say they ran; tok/s a user is the p50 decode tok/s of a request. "
            "Between two cells a side is interpolated, and what that misses is in no interval."
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _p(cell: ComparedCell) -> float:
    assert cell.primary.ratio is not None
    assert cell.primary.ratio.p is not None
    return cell.primary.ratio.p
