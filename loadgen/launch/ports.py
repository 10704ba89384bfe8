"""Ports on loopback: a free one for a server, whether it is free again, and who listens on it."""

from __future__ import annotations

import socket

import psutil

from loadgen.launch.processes import Tree


def free_port() -> int:
    """A port on 127.0.0.1 that is free now. It can be lost before the server binds it; `start_ready` tries again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """True if a server could bind it now. Old connections that linger in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def belongs_to_another(port: int, tree: Tree) -> bool:
    """True if somebody listens on ``port`` and it is none of ``tree``: an answer from there is not our server's.

    False where the system does not tell who listens. A process of our own is always told, so a listener without a
    name is another's.
    """
    try:
        sockets = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    pids = {
        found.pid for found in sockets if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr[1] == port
    }
    if not pids:
        return False
    tree.refresh(thorough=True)
    return pids.isdisjoint(process.pid for process in tree.alive())
