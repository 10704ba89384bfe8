"""One request by another's client in this process, for tests."""

from __future__ import annotations

import importlib
import importlib.util
import time
from functools import partial
from typing import Any

import pytest
from drive_driver import ONE, SHORT, make_job
from drive_servers import RawServer, Script

from loadgen.drive.clients import ClientTraffic
from loadgen.drive.job import Shape
from loadgen.drive.loop import Loop
from loadgen.drive.prepare import Prepared
from loadgen.record import Record, from_line


def installed(driver: str, package: str) -> Any:
    """A driver as a parameter of a test, which is skipped without its package."""
    missing = importlib.util.find_spec(package) is None
    return pytest.param(driver, marks=pytest.mark.skipif(missing, reason=f"the package {package} is not installed"))


CLIENTS = ["httpx", installed("openai", "openai")]


def ask_by(driver: str, script: Script, shape: dict[str, Any] | None = None, **fields: Any) -> list[Record]:
    """The records of one request, or of as many as the shape says, to a server with this script."""
    client = importlib.import_module(f"loadgen.drive.clients.{driver}").open_client
    lines: list[bytes] = []
    with RawServer(script) as server:
        job = make_job(server.url, Shape(**{**SHORT, **ONE, **(shape or {})}), driver=driver, **fields)
        loop = Loop(Prepared(job), None, lines.append, lambda tick: None, partial(ClientTraffic, open_client=client))
        loop.run(time.monotonic_ns() + 1_000_000)
    return [from_line(line) for line in b"".join(lines).splitlines()]
