"""A Ray cluster that exists: connected to, looked at, and given one place a node for workers.

In: an address. Out: Ray itself, nodes, a placement group; every way in which that can fail is a sentence. Ray is
imported here and nowhere else, inside the functions that need it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loadgen.errors import LoadgenError, UsageError

PLACE_S = 60.0
"""How long the cluster may take to give the nodes' cores away: others may be about to leave them."""

_START = "ray start --head --include-dashboard=false --disable-usage-stats"
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""What Ray reads from the environment. Whoever has said something else there means it."""


def connect(address: str | None) -> Any:
    """Ray's module, connected to a cluster that exists. Raises UsageError without Ray, LoadgenError without cluster."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UsageError("load.fleet: ray needs Ray, on every node: pip install 'loadgen[ray]'") from error
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        with _signals_kept():
            ray.init(address=where, namespace="loadgen", log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many kinds: connection, versions, token, address
        raise LoadgenError(_unconnected(where, error)) from error
    return ray


def _unconnected(where: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    place = "on this machine" if where == "auto" else f"at {where}"
    return (
        f"no Ray cluster can be reached {place}: {reason} Start one with `{_START}`, the same token (`ray "
        "get-auth-token --generate`) and RAY_AUTH_MODE=token on every node, and name it with --address HOST:PORT "
        "or RAY_ADDRESS."
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; a run counts its signals, and goes on to."""
    try:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)
    except ValueError:  # not the main thread, which has no signals to keep
        yield


def nodes_for_workers(ray: Any) -> list[str]:
    """The names of the nodes that are up and have a core for a worker."""
    up = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return [str(node.get("NodeManagerHostname") or node["NodeManagerAddress"]) for node in up]


def place(ray: Any, workers: int) -> Any:
    """A placement group of one core on each of as many nodes as there are to be workers.

    Raises UsageError if there are fewer nodes, LoadgenError if their cores are not given in time.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    nodes = nodes_for_workers(ray)
    if len(nodes) < workers:
        listed = f": {', '.join(nodes)}" if nodes else ""
        raise UsageError(
            f"load.workers: {workers} workers need {workers} nodes, one each, and the Ray cluster has {len(nodes)} "
            f"with a core for one{listed}. Start more nodes, or ask for --workers {max(len(nodes), 1)}."
        )
    group = placement_group([{"CPU": 1}] * workers, strategy="STRICT_SPREAD")
    if not group.wait(PLACE_S):
        remove_placement_group(group)
        raise LoadgenError(
            f"the Ray cluster did not give {workers} nodes a core each within {PLACE_S:.0f} s: others use them. "
            "`ray status` shows who has what; wait for them, or ask for fewer --workers."
        )
    return group


def leave(ray: Any, group: Any) -> None:
    """Gives the nodes' cores back and disconnects."""
    from ray.util.placement_group import remove_placement_group

    try:
        remove_placement_group(group)
    finally:
        ray.shutdown()


def actor(ray: Any, group: Any, index: int, what: type) -> Any:
    """An actor of a class on the node of place ``index``. It is never restarted by itself: what it held is lost."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    where = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
    made = ray.remote(what).options(num_cpus=1, max_concurrency=4, max_restarts=0, scheduling_strategy=where)
    return made.remote()


def why_lost(error: BaseException) -> str:
    """Why an actor is no more, for people: what Ray says, without its tables."""
    text = " ".join(str(error).split())
    if "node" in text and ("died" in text or "dead" in text) and "its node" in text:
        return "its node died"
    return text[:200]
