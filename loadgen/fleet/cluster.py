"""A Ray cluster that exists: connected to, looked at, and given one place a node for workers.

In: an address. Out: Ray itself, nodes, a placement group; every way in which that can fail is a sentence. Ray is
imported here and nowhere else, inside the functions that need it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loadgen.errors import LoadgenError, UsageError

PLACE_S = 60.0
"""How long the cluster may take to give the nodes' cores away: others may be about to leave them."""

_ANSWER_S = 10.0
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
"""What Ray reads from the environment. Whoever has said something else there means it."""


def connect(address: str | None) -> Any:
    """Ray's module, connected to a cluster that exists. Raises UsageError without Ray, LoadgenError without cluster."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UsageError("load.fleet: ray needs Ray, here and on every node: pip install 'loadgen[ray]'.") from error
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    _try_port(where)
    try:
        with _sigterm_kept():
            ray.init(address=where, namespace="loadgen", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds: connection, versions, token
        raise LoadgenError(_unconnected(where, error)) from error
    return ray


def _try_port(where: str) -> None:
    """Ray itself tries an address for minutes before it gives up. Raises LoadgenError."""
    found = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", where)
    if where == "auto":
        return
    if found is None:
        raise UsageError(
            f"--address {where}: write HOST:PORT, or auto for a cluster of this machine. (ray:// goes "
            "through a proxy, past which no clock can be measured.)"
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LoadgenError(
            f"no Ray cluster answers at {where}: {reason}. Start one with `ray start --head --include-dashboard=false "
            "--disable-usage-stats` (RAY_AUTH_MODE=token and one token on every node), and name it with --address or "
            "RAY_ADDRESS."
        ) from error


def _unconnected(where: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    place, join = ("on this machine", "") if where == "auto" else (f"at {where}", f" --address={where}")
    return (
        f"the Ray cluster {place} cannot be joined: {reason}. Is this machine one of its nodes (`ray start{join} "
        "--num-cpus=0` makes it one that sends nothing), is the token here (RAY_AUTH_TOKEN, or ~/.ray/auth_token) "
        "theirs, and is Ray of the same version?"
    )


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself where it is started; a run counts its signals, and goes on to."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


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
        if group is not None:
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
    for found, said in (("its node", "its node died"), ("its worker process", "its process died")):
        if f"because {found}" in text:
            return said
    return text.partition(". ")[0].partition(" class_name:")[0][:200].rstrip(".")
