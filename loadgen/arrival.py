"""When requests are sent in an open loop: offsets in seconds from the start of the repeat, never sleeps in a row.

In: the shape of the load and a seed. Out: a non-decreasing stream of offsets; the driver sends each at its own absolute
time, so a late send never shifts the ones behind it. All shapes are pure functions of (shape, seed): every worker
process walks the same stream and takes its share, so the union of the shares is the schedule of one process.

An open loop sends whether or not replies come back, which is what users do. A closed loop (a fixed number of requests
in flight) slows down with the server and hides its worst moments; both are here because both questions are asked.

* constant: request i at i / rate.
* poisson: gaps are exponential with mean 1 / rate; the classic model of many independent users.
* gamma: gaps are gamma distributed with mean 1 / rate and a given coefficient of variation (`burstiness` in a
  scenario): 1 is poisson, above 1 comes in bursts, 0 is constant.
* burst: all at t = 0, what "N prompts at once" throughput scripts do.
* piecewise: a Poisson process whose rate changes at given times (gaps are drawn in cumulated rate and mapped back,
  so a rate change takes effect at its time and not at the next arrival).
* timestamps: replay of given offsets.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of an open loop. ``rate_rps`` is requests a second; the other fields belong to the kinds that name
    them: ``cv`` (gamma) is the coefficient of variation of the gaps, ``count`` (burst) the number of requests,
    ``rates`` (piecewise) pairs of (from second, requests a second), ``timestamps`` (timestamps) offsets in seconds.
    """

    kind: Literal["constant", "poisson", "gamma", "burst", "piecewise", "timestamps"]
    rate_rps: float = 0.0
    cv: float = 1.0
    count: int = 0
    rates: tuple[tuple[float, float], ...] = ()
    timestamps: tuple[float, ...] = ()


def offsets(arrival: Arrival, seed: int) -> Iterator[float]:
    """The send times of an open loop, in seconds, non-decreasing; endless for the kinds that have a rate."""
    rng = random.Random(f"arrival-{seed}")
    match arrival.kind:
        case "constant":
            return (i / arrival.rate_rps for i in itertools.count())
        case "poisson":
            return itertools.accumulate(gaps(arrival.rate_rps, 1.0, rng))
        case "gamma":
            return itertools.accumulate(gaps(arrival.rate_rps, arrival.cv, rng))
        case "burst":
            return itertools.repeat(0.0, arrival.count)
        case "piecewise":
            return piecewise(arrival.rates, gaps(1.0, 1.0, rng))
        case "timestamps":
            return iter(sorted(arrival.timestamps))


def gaps(rate: float, cv: float, rng: random.Random) -> Iterator[float]:
    """Gaps in seconds with mean 1 / rate and coefficient of variation ``cv``, gamma distributed.

    A gamma distribution with shape k and scale s has mean k s and coefficient of variation 1 / sqrt(k), so
    k = 1 / cv^2 and s = cv^2 / rate. cv = 1 is the exponential distribution, cv = 0 a constant gap.
    """
    if cv == 0:
        yield from itertools.repeat(1 / rate)
    elif cv == 1:
        while True:
            yield rng.expovariate(rate)
    else:
        shape = 1 / cv**2
        while True:
            yield rng.gammavariate(shape, 1 / (shape * rate))


def piecewise(rates: Sequence[tuple[float, float]], unit_gaps: Iterator[float]) -> Iterator[float]:
    """Arrivals of a process whose rate is ``rates[i][1]`` from second ``rates[i][0]`` on; the last piece is endless.

    Time is changed: unit-rate arrivals happen at cumulated rate u; each u is mapped to the time at which the integral
    of the rate reaches it (Cinlar's inversion). It ends if the last rate is 0.
    """
    pieces = [(start, rate, end) for (start, rate), (end, _) in itertools.pairwise([*rates, (float("inf"), 0.0)])]
    reached, need = 0.0, next(unit_gaps)
    for start, rate, end in pieces:
        room = (end - start) * rate if rate > 0 else 0.0
        while rate > 0 and need <= reached + room:
            yield start + (need - reached) / rate
            need += next(unit_gaps)
        reached += room
