"""Where models and results lie, and how much room there is. In: the environment and the store. Out: findings."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from loadgen.doctor.finding import Finding, State, size
from loadgen.launch import hub_cache

WALK_S = 2.0
"""A cache is looked through for this long; a full one on a network disk takes minutes."""
MODEL_BYTES = 20 * 10**9
"""Less is not enough for a model of 7 billion parameters in 16 bit."""
RESULTS_BYTES = 2 * 10**9
NO_ROOM_BYTES = 200 * 10**6


def hub(environ: Mapping[str, str]) -> Finding:
    """The hub's cache: where, how large, and the room for one more model."""
    path = hub_cache(environ)
    held, whole = folder_bytes(path, time.monotonic() + WALK_S)
    free = shutil.disk_usage(nearest(path)).free
    offline = ", offline (HF_HUB_OFFLINE)" if environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    held_text = f"{'' if whole else 'at least '}{size(held)}" if path.exists() else "not there yet"
    text = f"{path}: {held_text}, {size(free)} free{offline}"
    tight = free < MODEL_BYTES
    advice = "little room for models: point HF_HOME at a larger disk, or remove some with `hf cache`." if tight else ""
    facts = {"path": str(path), "bytes": held, "whole": whole, "free_bytes": free}
    return Finding(name="hub cache", state="warning" if tight else "ok", text=text, advice=advice, facts=facts)


def store(path: Path) -> Finding:
    """The folder of results: can it be written, and is there room?"""
    place = nearest(path)
    free = shutil.disk_usage(place).free
    text = f"{path}{'' if path.exists() else ' (not there yet)'}: {size(free)} free"
    facts = {"path": str(path.absolute()), "free_bytes": free}
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "take another with --store, or mend its rights."
        return Finding(name="store", state="problem", text=f"{text}; it cannot be written", advice=advice, facts=facts)
    if free >= RESULTS_BYTES:
        return Finding(name="store", state="ok", text=text, facts=facts)
    advice = "a full disk ends a run: make room, or take another disk with --store."
    state: State = "problem" if free < NO_ROOM_BYTES else "warning"
    return Finding(name="store", state=state, text=text, advice=advice, facts=facts)


def folder_bytes(path: Path, until: float) -> tuple[int, bool]:
    """Bytes on the disk below a folder, links not followed, and whether all was counted before the time ``until``."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
        if time.monotonic() > until:
            return total, False
    return total, True


def nearest(path: Path) -> Path:
    """The folder itself, or the lowest above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
