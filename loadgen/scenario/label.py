"""The id of a cell: short, stable, readable, and safe as the name of a folder on every file system."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from loadgen.scenario.kinds import Scalar

LONGEST = 100


def cell_id(axes: Mapping[str, Scalar]) -> str:
    """``concurrency=4-input_tokens=100``; ``all`` without axes. It depends on the values alone.

    Where a value cannot stand in a file name as it is, or the whole is too long, six hex digits of a hash of the values
    keep the id unique.
    """
    if not axes:
        return "all"
    text = "-".join(f"{name}={value_text(value)}" for name, value in axes.items())
    safe = re.sub(r"[^A-Za-z0-9._=+-]+", "_", text)
    if safe == text and len(safe) <= LONGEST:
        return safe
    digest = hashlib.sha256(json.dumps(dict(axes)).encode()).hexdigest()[:6]
    return f"{safe[: LONGEST - 7]}-{digest}"


def value_text(value: Scalar) -> str:
    """A value as people write it: ``1`` for 1.0, ``true`` for True."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value)
