"""Containers of ours, found by our own label and by nothing else, through the container engine's command line."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from loadgen.launch.command import Container


def living(container: Container) -> list[str]:
    """Ids of the containers that carry this label, whether they run or not.

    Empty as well where the container engine does not answer: then none of ours can be named.
    """
    words = [container.program, "ps", "-aq", "--filter", f"label={container.label}"]
    return quiet(words, 20.0).split()


def remove(container: Container, grace_s: float) -> list[str]:
    """Stop and remove what carries this label; returns the ids that are still there afterwards."""
    ids = living(container)
    if ids:
        quiet([container.program, "stop", "-t", f"{grace_s:.0f}", *ids], grace_s + 30.0)
    if ids := living(container):  # without --rm, or if the stop failed
        quiet([container.program, "rm", "-f", *ids], 60.0)
    return living(container) if ids else []


def quiet(words: Sequence[str], timeout_s: float) -> str:
    """What a command prints; empty if it fails, hangs or does not exist. The proof of the stop comes afterwards."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
