"""What an examination finds: a line for the user, the same as values for programs, and what to do about it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

State = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. A warning costs exactness or room, a problem stands in the way of a measurement.

    ``text`` and ``advice`` are sentences (``advice`` is empty where nothing is to be done); ``facts`` are the values.
    """

    name: str
    state: State
    text: str
    advice: str = ""
    facts: dict[str, Any] = {}


def size(count: float) -> str:
    """Bytes as people read them, in units of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB" if count < 1000 else f"{count / 1000:.2f} TB"
