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
    return re.sub(r"(/v1)?/*$", "", text.rstrip("/"))


def share(value: Any) -> Any:
    """``1%`` and ``"1 %"`` as 0.01; numbers stay as they are."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", value)):
        return float(match[1]) / 100
    return value


def gpu_name(text: str) -> str:
    """The name of a GPU whose peaks are known, as ``roofline.py`` spells it: ``h200`` for ``H200``."""
    from loadgen.errors import UsageError
    from loadgen.roofline import gpu_key

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
