"""Values of a scenario that have a grammar of their own: addresses, shares, objectives, environment values.

Pure functions from what is written to what is meant. Each raises ValueError with a sentence, which the reader of
scenarios puts behind file, line and path; a ``{}`` in it becomes the value as the user wrote it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit


def base_url(text: str) -> str:
    """The root of a server, without a trailing ``/`` or ``/v1``: ``http://host:port``, ``https://...`` or
    ``unix:///path.sock``. An address without scheme, with credentials or with a query is refused."""
    url = urlsplit(text)
    if url.scheme == "unix":
        if url.netloc or not url.path.startswith("/"):
            raise ValueError("write a socket as unix:///absolute/path.sock")
        return text
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("{} is no address; write it like http://127.0.0.1:8000")
    if url.username is not None or url.password is not None:
        raise ValueError("holds credentials, which do not stand in a scenario; name the key by api_key_env instead")
    if url.query or url.fragment:
        raise ValueError("{} has a query or a fragment; write the root of the server alone")
    try:
        _ = url.port
    except ValueError:
        raise ValueError("{} has a port outside 0 to 65535") from None
    if added := re.search(r"(/v1)?(/chat)?/completions/*$", url.path):
        raise ValueError(f"{{}} is where requests go; write the root of the server alone, without {added[0]}")
    return re.sub(r"(/v1)?/*$", "", text.rstrip("/"))


def share(value: Any) -> Any:
    """``1%`` and ``"1 %"`` as 0.01; numbers stay as they are."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", value)):
        return float(match[1]) / 100
    return value


def gpu_name(text: str) -> str:
    """The name of a GPU whose peaks are known, as ``roofline.py`` spells it: ``h200`` for ``H200``."""
    from loadgen.errors import UsageError
    from loadgen.shapes.roofline import gpu_key

    try:
        return gpu_key(text)
    except UsageError as error:
        known = str(error).removeprefix(f"gpu {text!r}: ")
        raise ValueError(f"{{}} is no GPU whose peaks are known here. {known}") from None


def env_text(value: Any) -> Any:
    """A whole number as text, which is what an environment holds; everything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def objective_text(text: str) -> str:
    """The text of an objective, as written, once it is known to state one."""
    from loadgen.scenario.objective import parse_objective

    parse_objective(text)
    return text


def measure_text(text: str) -> str:
    """A measure by its own name: ``p50 ttft`` becomes ``p50 ttft_s``."""
    from loadgen.scenario.objective import parse_measure

    return str(parse_measure(text))


def primary_text(text: str) -> str:
    """A measure that may raise an alarm, by its own name: one of which more or less is better, and no far tail, which
    moves by itself from night to night."""
    from loadgen.metrics import METRICS
    from loadgen.scenario.objective import parse_measure

    what = parse_measure(text)
    if METRICS[what.metric].better is None:
        raise ValueError(f"{what}: neither more nor less of it is better, so that no night is worse by it")
    if what.statistic in ("p99", "p99.9", "min", "max"):
        raise ValueError(f"{what} moves too much from night to night to raise an alarm; take p50 or p95 of it")
    return str(what)


def period(text: str) -> float:
    """``90 s``, ``30min``, ``2h``, ``90d`` as seconds. Raises ValueError with a sentence."""
    units = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", text.lower())
    if match is None or match[2] not in units or not float(match[1]):
        raise ValueError(f"{text!r} is no length of time; write it like 90s, 30min, 2h or 7d")
    return float(match[1]) * units[match[2]]
