"""Looks at the server, its GPUs and the client once a second, in one thread of the parent process: workers never wait
for it, and nothing that it cannot see fails a run.

In: a `Machine` and the engine's Prometheus page. Out, when the repeat is over: what was seen in its window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
import psutil

from loadgen.launch.processes import ProcessId
from loadgen.record import Record
from loadgen.telemetry import dcgm, looks, nvml, page
from loadgen.telemetry.measured import Source, Telemetry, measured, ours_of
from loadgen.telemetry.process import Processes
from loadgen.telemetry.prometheus import Seen, counters, gauges, kept, merged, parse, peaks, seen
from loadgen.telemetry.reading import GpuReading, Reading

if TYPE_CHECKING:
    import httpx

EVERY_S = 1.0

Look = Callable[[nvml.Owners], tuple[GpuReading, ...]]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where a target runs, as far as telemetry can find it.

    ``gpus`` are its GPUs on this machine by index or UUID (empty: any), None where it runs on another one. ``dcgm`` is
    the URL of a DCGM exporter's page there. ``processes`` are those of its server, empty where they are not known, and
    ``others`` those of the run's other servers, None where one of all is not known (it runs in a container).
    ``reset_peak`` is what to POST to before a repeat, so that the engine counts its peaks anew.
    """

    gpus: tuple[int | str, ...] | None = None
    dcgm: str | None = None
    processes: tuple[ProcessId, ...] = ()
    others: tuple[ProcessId, ...] | None = ()
    reset_peak: str | None = None


class Sampler:
    """What was seen over one repeat. Use it as a context manager around the repeat; then ask.

    ``urls`` are the engines' Prometheus pages, one for each endpoint, ``names`` their metrics by our words. Where a
    page cannot be had the first time none is asked for again: what the others say would be a part that looks like the
    whole.
    """

    def __init__(
        self, urls: Sequence[str], names: Mapping[str, str], proxy: str | None = None, machine: Machine | None = None
    ) -> None:
        self._urls = tuple(urls) if names else ()
        self._last: dict[str, dict[str, float]] = {}
        self._names = names
        self._keep = kept(names)
        self._proxy = proxy
        self._machine = machine or Machine()
        self._dcgm = self._machine.dcgm
        self._processes = Processes(self._machine.processes, self._machine.others or ())
        self._pages: list[tuple[int, dict[str, float]]] = []
        self._readings: list[Reading] = []
        self._anew = False
        self._now: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)

    def __enter__(self) -> Sampler:
        if self._urls and self._machine.reset_peak is not None:
            with page.client(self._proxy) as client:
                self._anew = _text(client, "POST", self._machine.reset_peak) is not None
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2 * page.TIMEOUT_S)

    def seen(self, start_ns: int, end_ns: int) -> Seen:
        """What the server said between two moments (monotonic ns). The pages nearest to both edges are taken along."""
        return seen(self._names, [page for _, page in self._between(start_ns, end_ns)])

    def client_ttft_s(self, records: Iterable[Record], began_ns: int, start_ns: int, end_ns: int) -> float | None:
        """Mean TTFT, by the client, of the requests that the server's own mean of `seen` is of: those whose first token
        came between the same two pages. ``began_ns`` is the start of the repeat."""
        pages = self._between(start_ns, end_ns)
        if len(pages) < 2:
            return None
        low, high = ((at - began_ns) / 1e9 for at in (pages[0][0], pages[-1][0]))
        total, count = 0.0, 0
        for record in records:
            if record.ttft_s is not None and record.t_first is not None and low <= record.t_first <= high:
                total, count = total + record.ttft_s, count + 1
        return total / count if count else None

    def _between(self, start_ns: int, end_ns: int) -> list[tuple[int, dict[str, float]]]:
        inside = [page for page in self._pages if start_ns <= page[0] <= end_ns]
        if len(inside) >= 2:
            return inside
        before = [page for page in self._pages if page[0] < start_ns][-1:]
        after = [page for page in self._pages if page[0] > end_ns][:1]
        return [*before, *inside, *after]

    def telemetry(self, start_ns: int, end_ns: int) -> Telemetry:
        """What the machines did between two moments (monotonic ns)."""
        found = measured(self._readings, (start_ns, end_ns), self._source, bool(self._machine.gpus))
        peak = peaks(self._names, [page for _, page in self._pages]) if self._anew else {}
        return msgspec.structs.replace(
            found, torch_peak_bytes=peak.get("memory_peak"), torch_reserved_bytes=peak.get("memory_reserved")
        )

    @property
    def now(self) -> dict[str, float]:
        """What was last seen of this moment, in words: see `words_of`, and the gauges of `prometheus`."""
        return self._now

    @property
    def _source(self) -> Source | None:
        return "dcgm" if self._machine.dcgm else "nvml" if self._machine.gpus is not None else None

    def _watch(self) -> None:
        """A look at once, one a second, and one at the end. A look that took long is followed by the next at once, and
        those that it took the time of are left out."""
        with ExitStack() as stack:
            client = stack.enter_context(page.client(self._proxy)) if self._urls or self._dcgm else None
            local = self._machine.gpus if self._source == "nvml" else None
            gpus = None if local is None else stack.enter_context(nvml.watched(local))
            due = time.monotonic() + EVERY_S
            self._look(client, gpus)
            while not self._over.wait(max(due - time.monotonic(), 0.0)):
                self._look(client, gpus)
                due = max(due + EVERY_S, time.monotonic())
            self._look(client, gpus)

    def _look(self, client: httpx.Client | None, gpus: Look | None) -> None:
        at = time.monotonic_ns()
        server, mine = self._processes.read()
        reading = Reading(
            at_ns=at,
            gpus=gpus(self._owners()) if gpus is not None else self._remote(client),
            server=server,
            client=mine,
            host_bytes=float((memory := psutil.virtual_memory()).total - memory.available),
        )
        self._readings.append(reading)
        self._readings = looks.kept(self._readings, looks.merged)
        words = words_of(reading, bool(self._machine.gpus) or self._source == "dcgm")
        self._now = {**self._page(client), **words}

    def _owners(self) -> nvml.Owners:
        known = bool(self._machine.processes)
        others = self._machine.others is not None
        return nvml.Owners(
            self._processes.server if known else None, self._processes.ours if known and others else None
        )

    def _remote(self, client: httpx.Client | None) -> tuple[GpuReading, ...]:
        if client is None or self._dcgm is None:
            return ()
        text = _text(client, "GET", self._dcgm)
        if text is None and not self._readings:
            self._dcgm = None
        return () if text is None else dcgm.read(text, self._machine.gpus or ())

    def _page(self, client: httpx.Client | None) -> dict[str, float]:
        """Keeps what the engine's pages say together; what they say of this moment."""
        if client is None or not self._urls:
            return {}
        texts = {url: _text(client, "GET", url) for url in self._urls}
        if not self._pages and None in texts.values():
            self._urls = ()
        if not self._urls or all(text is None for text in texts.values()):
            return {}
        for url, text in texts.items():  # what an endpoint that is gone had counted stays in the sum
            self._last[url] = counters(self._names, self._last[url]) if text is None else parse(text, self._keep)
        together = merged(self._names, list(self._last.values()))
        self._pages.append((time.monotonic_ns(), together))
        self._pages = looks.kept(self._pages, looks.later)
        return gauges(self._names, together)


def words_of(reading: Reading, named: bool) -> dict[str, float]:
    """One look as words and numbers, for lines of ticks: ``gpu_watts``, ``gpu_bytes`` and ``gpu_bytes_total`` summed
    over the target's GPUs, ``gpu_use`` (0 to 1) their mean, ``gpu_mhz`` the slowest SM clock, ``gpu_celsius`` the
    hottest; ``server_bytes``, ``client_bytes`` (resident) and ``host_bytes``. What is not known has no word."""
    mine = ours_of([reading], named)
    gpus = [gpu for gpu in reading.gpus if gpu.uuid in mine]
    columns: dict[str, tuple[list[float | None], Callable[[list[float]], float]]] = {
        "gpu_watts": ([gpu.watts for gpu in gpus], sum),
        "gpu_bytes": ([gpu.memory_bytes for gpu in gpus], sum),
        "gpu_bytes_total": ([gpu.total_bytes for gpu in gpus], sum),
        "gpu_use": ([gpu.utilisation for gpu in gpus], lambda values: sum(values) / len(values)),
        "gpu_mhz": ([gpu.sm_mhz for gpu in gpus], min),
        "gpu_celsius": ([gpu.celsius for gpu in gpus], max),
        "server_bytes": ([reading.server.rss_bytes if reading.server else None], sum),
        "client_bytes": ([reading.client.rss_bytes if reading.client else None], sum),
        "host_bytes": ([reading.host_bytes], sum),
    }
    known = {word: ([one for one in values if one is not None], over) for word, (values, over) in columns.items()}
    return {
        word: over(values) for word, (values, over) in known.items() if values and len(values) == len(columns[word][0])
    }


def _text(client: httpx.Client, method: str, url: str) -> str | None:
    """The text of a reply that is good, else None."""
    import httpx

    try:
        status, text = page.ask(client, method, url)
    except httpx.HTTPError:
        return None
    return text if status == 200 else None
