"""Containers of ours, found by our own label and by nothing else, through the container engine's command line."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from loadgen.launch.command import Container

REMOVED_WITHIN_S = 10.0
"""A container with ``--rm`` is listed for a moment after its end, while the engine takes it away itself."""


def living(container: Container) -> list[str] | None:
    """Ids of the containers that carry this label, whether they run or not.

    None where the container engine does not answer: then nobody knows.
    """
    listed = said([container.program, "ps", "-aq", "--filter", f"label={container.label}"], 20.0)
    return None if listed is None else listed.split()


def remove(container: Container, grace_s: float) -> list[str] | None:
    """Stop and remove what carries this label; returns the ids that are still there afterwards, None if unknown."""
    ids = living(container)
    if not ids:
        return ids
    said([container.program, "stop", "-t", f"{grace_s:.0f}", *ids], grace_s + 30.0)
    until = time.monotonic() + REMOVED_WITHIN_S
    while (ids := living(container)) and time.monotonic() < until:
        said([container.program, "rm", "-f", *ids], 60.0)  # without --rm, or if the stop failed
        time.sleep(0.1)
    return ids


def image_of(container: Container) -> dict[str, str | None]:
    """The image that runs: its id, and its digest in a registry (None if it never was in one); empty if unknown."""
    program = container.program
    ids = living(container) or [""]
    image = (said([program, "inspect", "--format", "{{.Image}}", ids[0]], 20.0) or "").strip() if ids[0] else ""
    if not image:
        return {}
    digests = said([program, "image", "inspect", "--format", "{{range .RepoDigests}}{{.}} {{end}}", image], 20.0)
    return {"image_id": image, "image_digest": next(iter((digests or "").split()), None)}


def said(words: Sequence[str], timeout_s: float) -> str | None:
    """What a command prints; None if it fails, hangs or does not exist."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
