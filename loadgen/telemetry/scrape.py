"""Reads an engine's Prometheus page once a second in a thread of the parent process, away from the measuring path."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loadgen.telemetry.prometheus import Seen, gauges, parse, seen

if TYPE_CHECKING:
    import httpx

_EVERY_S = 1.0


class Scraper:
    """Pages of one server over one repeat. Start it before the repeat; ask for `between` when it is over.

    A page that cannot be had is left out: telemetry never fails a run. ``url`` None reads nothing.
    """

    def __init__(self, url: str | None, names: Mapping[str, str], proxy: str | None = None) -> None:
        self._url = url if names else None
        self._names = names
        self._proxy = proxy
        self._pages: list[tuple[int, dict[str, float]]] = []
        self._now: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="scraper", daemon=True)

    def __enter__(self) -> Scraper:
        if self._url is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def between(self, start_ns: int, end_ns: int) -> Seen:
        """What the server said between two moments (monotonic ns). The pages nearest to both edges are taken along."""
        inside = [page for at, page in self._pages if start_ns <= at <= end_ns]
        before = [page for at, page in self._pages if at < start_ns][-1:]
        after = [page for at, page in self._pages if at > end_ns][:1]
        return seen(self._names, [*(before if len(inside) < 2 else []), *inside, *(after if len(inside) < 2 else [])])

    @property
    def now(self) -> dict[str, float]:
        """What the server last said of this moment (the gauges of `prometheus`); {} where it says nothing."""
        return self._now

    def _read(self) -> None:
        """A page at once, one a second, and one at the end; none more if the first cannot be had."""
        import httpx

        with httpx.Client(timeout=5, trust_env=False, proxy=self._proxy) as client:
            self._page(client)
            while self._pages and not self._over.wait(_EVERY_S):
                self._page(client)
            if self._pages:
                self._page(client)

    def _page(self, client: httpx.Client) -> None:
        import httpx

        self._now = {}
        try:
            reply = client.get(self._url or "")
        except httpx.HTTPError:
            return
        if reply.status_code == 200:
            page = parse(reply.text)
            self._now = gauges(self._names, page)
            self._pages.append((time.monotonic_ns(), page))
