"""How long a repeat will take, before anything is known of the server: a guess where its load ends by a count.

In: a load, its `Shape`, the workload. Out: seconds, and the assumption that they rest on in words, empty where the
scenario says how long a repeat is, as the times of a replay do. Another open loop says when its last request leaves;
only how long that one is answered has to be assumed. In a closed loop the server sets the pace: each slot is taken to
get its replies one after the other, at `TOK_S` tokens a second after `FIRST_S`. That is a large model on one data
centre GPU at a small batch; a small one, or a fake one, is done sooner, and a full server or a CPU later. A run that is
resumed goes by what its repeats took.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from loadgen import lengths
from loadgen.arrival import Arrival, offsets
from loadgen.drive.job import Shape
from loadgen.scenario.model import Load, Workload
from loadgen.workloads import Context, trace

TOK_S = 50.0
"""Tokens of a reply a second."""

FIRST_S = 0.2
"""Seconds to the first token."""

AUTO_WARMUP_S = 20.0
"""What a warm-up that ends by itself is taken for; it is from 10 to 120 s."""

AROUND_S = 0.5
"""Before and after a repeat: workers begin together, and what they wrote is put on the disk."""

_DRAWN = 200
"""Replies that the mean of their lengths is taken over."""


def expected(load: Load, shape: Shape, workload: Workload, seed: int, folder: Path) -> tuple[float, str]:
    """Seconds of a repeat, and what is assumed. ``folder`` is the scenario's. Raises UsageError for a file that cannot
    be used."""
    warmup_s = AUTO_WARMUP_S if shape.warmup_s is None else shape.warmup_s
    assumed = [f"a warm-up of {AUTO_WARMUP_S:g} s"] if shape.warmup_s is None else []
    said_s = None if load.window_s is None else warmup_s + load.window_s
    if shape.arrival is not None and shape.arrival.timestamps:
        last_s = _last_sent(shape.arrival, shape.requests, warmup_s, seed)
        said_s = last_s if said_s is None else min(last_s, said_s)
    if said_s is not None:
        return said_s + AROUND_S, ", ".join(assumed)
    tokens = reply_tok(workload, folder)
    reply_s = FIRST_S + tokens / TOK_S
    length = "1 token" if tokens == 1 else f"{tokens:.0f} tokens"
    assumed.append(f"replies of {length} at {TOK_S:g} a second, the first after {FIRST_S:g} s")
    if shape.arrival is None:
        whole = warmup_s + _closed(load, reply_s)
    else:
        whole = _last_sent(shape.arrival, shape.requests, warmup_s, seed) + reply_s
    return whole + AROUND_S, ", ".join(assumed)


def reply_tok(workload: Workload, folder: Path) -> float:
    """The mean length of replies in tokens; where the model may stop by itself, the most that it may write."""
    output = workload.output
    if isinstance(output.said, dict):
        drawn = lengths.Draw("workload.output", lengths.parse("workload.output", output.said), str(folder))
        found = [drawn.at(0, "output", index) for index in range(_DRAWN)]
    elif output.said == "trace":
        context = Context(seed=0, ask_tok=0, folder=str(folder))
        found = [out_tok for _, out_tok in trace.lengths(workload.settings, context)]
    else:
        found = [output.number or 0]
    return sum(found) / len(found)


def _closed(load: Load, reply_s: float) -> float:
    """Seconds of a closed loop's measured requests: those of the slot that has the most, one after the other, and no
    sooner than a courtesy cap lets them go."""
    requests = load.requests or 0
    rounds = -(-requests // (load.concurrency or 1))
    return max(rounds * reply_s, requests / load.max_rps if load.max_rps else 0.0)


def _last_sent(arrival: Arrival, requests: int | None, warmup_s: float, seed: int) -> float:
    """When the last request of an open loop leaves: of all of them, or of so many after the warm-up."""
    if requests is not None and arrival.rate_rps:
        return warmup_s + requests / arrival.rate_rps
    stream = offsets(arrival, seed)
    if requests is not None:
        measured = itertools.dropwhile(lambda at: at < warmup_s, stream)
        stream = itertools.islice(measured, requests)
    return max(stream, default=warmup_s)
