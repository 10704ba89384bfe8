"""A page of another program, read to its end or to ours: a page that never ends, drips, or unfolds from a few
compressed bytes takes neither this process's memory nor its time.

In: an HTTP client and a URL. Out: status and text, or httpx.HTTPError, whatever it is that went wrong.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0
"""For a connection, for one read, and for the whole of a page (which may take one read longer)."""

LONGEST = 16 << 20
"""Bytes. The pages of engines have some 100 kB, that of an exporter with eight GPUs 50 kB."""


def client(proxy: str | None = None) -> httpx.Client:
    """A client for pages: no proxy of the environment, and nothing compressed."""
    import httpx

    return httpx.Client(timeout=TIMEOUT_S, trust_env=False, proxy=proxy, headers={"accept-encoding": "identity"})


def ask(client: httpx.Client, method: str, url: str) -> tuple[int, str]:
    """Status and text (UTF-8, whatever the page says of itself). Raises httpx.HTTPError."""
    import httpx

    late = time.monotonic() + TIMEOUT_S
    data = bytearray()
    with client.stream(method, url) as reply:
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            raise httpx.DecodingError("it is compressed, though nobody asked for that", request=reply.request)
        for piece in reply.iter_raw():
            data += piece
            if len(data) > LONGEST:
                raise httpx.ReadError(f"it is longer than {LONGEST >> 20} MiB", request=reply.request)
            if time.monotonic() > late:
                raise httpx.ReadTimeout(f"it had not ended after {TIMEOUT_S:g} s", request=reply.request)
        return reply.status_code, data.decode("utf-8", "replace")
