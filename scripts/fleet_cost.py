"""What Ray costs the workers: the same load from a worker started here and from one started by Ray, at the same time.

usage: .venv/bin/python scripts/fleet_cost.py [ROUNDS] [STREAMS] [SECONDS]

Two workers drive the same load side by side, each with STREAMS streams of a token every 20 ms from a null server of its
own, so that whatever else the machine does touches both alike. In one half of the rounds one of them is a local fleet's
and the other a Ray fleet's (a cluster of one node, with a token, that is started for it); in the other half both are
local, which shows what two equal workers differ by here. Prints medians over the rounds, and the median and range of
the ratios: the worker's CPU a token in the window, and with all that it does before and after; how long received bytes
waited for it at worst (lag, by request); how far its stamps of first tokens are from the server's own; lateness; and by
how much the start was off for what was not known of the clocks.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from worker_cost import repeat

from loadgen.fleet import Fleet, local, ray


@contextmanager
def one_node() -> Iterator[str]:
    """A Ray cluster of one node: its address."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def together(fleets: Sequence[Fleet], streams: int, seconds: float) -> list[dict[str, float]]:
    """A repeat of each fleet, all at once."""
    with ThreadPoolExecutor(len(fleets)) as threads:
        return list(threads.map(lambda fleet: repeat(fleet, streams, seconds), fleets))


def main() -> None:
    """Rounds, one after the other."""
    rounds, streams, seconds = (int(word) for word in [*sys.argv[1:], *("8", "64", "6")[len(sys.argv) - 1 :]])
    found: dict[str, list[list[dict[str, float]]]] = {"ray": [], "equal": []}
    with one_node() as address, local.Fleet(1) as here, local.Fleet(1) as equal, ray.Fleet(1, address) as there:
        others: dict[str, Fleet] = {"ray": there, "equal": equal}
        together([here, equal, there], streams, 3)
        for number in range(rounds):
            for arm in ("ray", "equal") if number % 2 else ("equal", "ray"):
                found[arm].append(together([here, others[arm]], streams, seconds))
    print(f"{rounds} rounds, {streams} streams, {seconds} s")
    print(f"{'':20}{'local':>10}{'ray':>10}{'ratio':>8}  range             two local ones")
    for name in found["equal"][0][0]:
        pairs = {arm: [(one[name], other[name]) for one, other in pairs] for arm, pairs in found.items()}
        ratios = {arm: sorted(b / a for a, b in values if a) or [0.0] for arm, values in pairs.items()}
        told = [f"{statistics.median(one):8.2f}  {one[0]:.2f} to {one[-1]:.2f}" for one in ratios.values()]
        first, second = (statistics.median(values) for values in zip(*pairs["ray"], strict=True))
        print(f"{name:20}{first:10.1f}{second:10.1f}{'    '.join(told)}")
    off = [other["start off us"] for _, other in found["ray"]]
    print(f"{'start off us':20}{'':10}{statistics.median(off):10.1f}          {min(off):.1f} to {max(off):.1f}")


main()
