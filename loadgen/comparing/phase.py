"""How far a rate may be off because every repeat begins at the same phase of its requests.

In: the summaries of both sides of a cell. Out: a `Doubt`, where their interval is narrower than that. A server that
answers alike every time, asked by a closed loop, does the same in the same second of every repeat: what the two ends of
the window cut off is then the same error again and again, and no spread of repeats shows it.

Of a request that takes e2e, no token comes for TTFT - TPOT longer than between any two. Tokens so far less their mean
rate are a triangle wave of the range f = (TTFT - TPOT) / e2e of a reply's tokens, at a uniform phase of variance
f^2 / 12; that they come one at a time adds a wave of the range TPOT / e2e. A window has two ends, and holds n =
length / e2e lives of each of c slots: the rate has the relative standard deviation f / (n sqrt(6 c)). Whole requests
come all at once, f = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadgen.summary import Doubt, Summary

_OF_TOKENS = "output_tok_s"
_SMALL = 4
"""Two standard deviations that are half the margin can make a verdict of a difference that is none."""
_RATES = (_OF_TOKENS, "request_rps", "total_tok_s")


def phase_doubt(
    metric: str, ratio: tuple[float | None, float], sides: tuple[Sequence[Summary], Sequence[Summary]], where: str
) -> Doubt | None:
    """Said of a ratio whose interval is narrower than one phase lets it be true to. ``ratio`` is the interval's half
    width on the logarithm, and the margin: what is small beside it is not worth a word.

    None for open loops, for what is no rate, and where nothing is known of the requests' lives.
    """
    half_width, margin = ratio
    errors = [error_of(metric, side) for side in sides]
    if half_width is None or None in errors:
        return None
    error = math.hypot(*(one for one in errors if one is not None))
    if half_width >= error or error < margin / _SMALL:
        return None
    longest = max(summary.e2e_s.mean or 0.0 for side in sides for summary in side)
    return Doubt(
        "phase",
        f"Differences of less than {2 * error * 100:.2g} %{where} may be those of where the window begins: requests "
        f"take up to {longest:.3g} s, and every repeat begins at the same phase of them, which no interval holds. Make "
        "load.window_s longer.",
    )


def error_of(metric: str, side: Sequence[Summary]) -> float | None:
    """The relative standard deviation of a rate for its phase; None where there is none."""
    found = [error for summary in side if (error := _error(metric, summary)) is not None]
    return math.fsum(found) / len(found) if found else None


def _error(metric: str, summary: Summary) -> float | None:
    life, slots = summary.e2e_s.mean, summary.in_flight
    if metric not in _RATES or summary.audit.offered_rps is not None or not life or not slots:
        return None
    waves = _waves(summary) if metric == _OF_TOKENS else life
    return waves / (summary.window.length_s * math.sqrt(6 * slots))


def _waves(summary: Summary) -> float:
    """Seconds of its life for which a request brings fewer or more tokens than on average; all of them where replies
    come whole."""
    ttft, tpot = summary.ttft_s.mean, summary.tpot_s.mean or 0.0
    return summary.e2e_s.mean or 0.0 if ttft is None else math.hypot(max(ttft - tpot, 0.0), tpot)
