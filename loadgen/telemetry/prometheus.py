"""What an engine says of itself on its Prometheus page, in our words.

In: the text of a page, and the recipe's map from our words to the engine's metric names. Out: numbers. Samples of one
name are summed over their labels. Our words: ``running`` and ``waiting`` (requests now), ``kv_use`` (0 to 1),
``batch`` (a histogram of the size of each step's batch), ``prompt_tokens``, ``generation_tokens``, ``cached_tokens``
and ``preemptions`` (counters), ``queue_s`` and ``ttft_s`` (histograms), ``memory_peak`` and ``memory_reserved`` (bytes
that torch's allocator gave and held at most, over GPUs). An engine that lacks a word just does not map it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

HISTOGRAMS = ("batch", "queue_s", "ttft_s")
COUNTERS = ("prompt_tokens", "generation_tokens", "cached_tokens", "preemptions")
GAUGES = ("running", "waiting", "kv_use")
PEAKS = ("memory_peak", "memory_reserved")

_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said over one window; None where it says nothing.

    ``batch_seen`` is the mean size of the batches that it ran: by its own histogram, else the mean of ``running`` as
    sampled. Means of ``queue_s`` and ``ttft_s`` are those of the requests that it finished counting in the window.
    """

    batch_seen: float | None = None
    batch_source: str | None = None
    running_max: float | None = None
    waiting_max: float | None = None
    kv_use_max: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    cached_tokens: float | None = None
    preemptions: float | None = None
    queue_s: float | None = None
    ttft_s: float | None = None

    @property
    def cached_share(self) -> float | None:
        """The share of prompt tokens that came from the prefix cache, by the server's counters."""
        return None if self.cached_tokens is None or not self.prompt_tokens else self.cached_tokens / self.prompt_tokens


def samples(page: str, keep: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of every sample, only those of ``keep`` where it is given. Lines that are none are passed
    over, and so is a NaN: it says nothing."""
    for line in page.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        if keep is not None and name.strip() not in keep:
            continue
        labels, _, text = rest.rpartition("}") if "{" in line else ("", "", rest)
        try:
            value = float(text.split()[0])
        except (ValueError, IndexError):
            continue
        if value == value:
            yield name.strip(), dict(_LABEL.findall(labels)), value


def parse(page: str, keep: Collection[str] | None = None) -> dict[str, float]:
    """Name -> value of every sample, summed over labels; only those of ``keep`` where it is given."""
    values: dict[str, float] = {}
    for name, _, value in samples(page, keep):
        values[name] = values.get(name, 0.0) + value
    return values


def kept(names: Mapping[str, str]) -> frozenset[str]:
    """The names of all samples that `seen` and `peaks` look at."""
    return frozenset(f"{name}{ending}" for name in names.values() for ending in ("", "_total", "_sum", "_count"))


def seen(names: Mapping[str, str], pages: list[dict[str, float]]) -> Seen:
    """What the pages of one window, oldest first, come to. With fewer than two pages there is nothing to say."""
    if len(pages) < 2:
        return Seen()
    first, last = pages[0], pages[-1]
    found: dict[str, Any] = {}
    for word in COUNTERS:
        found[word] = _delta(first, last, names.get(word), ("", "_total"))
    for word in HISTOGRAMS:
        found[word] = _mean_between(first, last, names.get(word))
    sampled = {word: _samples(pages, names.get(word)) for word in GAUGES}
    batch, source = found.pop("batch"), "histogram"
    if batch is None and sampled["running"]:
        batch, source = sum(sampled["running"]) / len(sampled["running"]), "samples"
    return Seen(
        batch_seen=batch,
        batch_source=source if batch is not None else None,
        running_max=max(sampled["running"], default=None),
        waiting_max=max(sampled["waiting"], default=None),
        kv_use_max=max(sampled["kv_use"], default=None),
        **found,
    )


def merged(names: Mapping[str, str], pages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The pages of several servers as that of one: sums, and of shares the mean."""
    found: dict[str, float] = {}
    for page in pages:
        for name, value in page.items():
            found[name] = found.get(name, 0.0) + value
    share = names.get("kv_use")
    if share in found:
        found[share] /= sum(share in page for page in pages)
    return found


def counters(names: Mapping[str, str], page: Mapping[str, float]) -> dict[str, float]:
    """A page without what it says of its own moment alone."""
    now = {names.get(word) for word in GAUGES}
    return {name: value for name, value in page.items() if name not in now}


def gauges(names: Mapping[str, str], page: Mapping[str, float]) -> dict[str, float]:
    """What a page says of this moment, in our words."""
    return {word: page[names[word]] for word in GAUGES if names.get(word) in page}


def peaks(names: Mapping[str, str], pages: list[dict[str, float]]) -> dict[str, float]:
    """The most that was seen of what only grows, by our words."""
    found = {word: max(_samples(pages, names.get(word)), default=None) for word in PEAKS}
    return {word: value for word, value in found.items() if value is not None}


def _samples(pages: list[dict[str, float]], name: str | None) -> list[float]:
    return [page[name] for page in pages if name in page] if name else []


def _delta(first: dict[str, float], last: dict[str, float], name: str | None, endings: tuple[str, ...]) -> float | None:
    for ending in endings:
        key = f"{name}{ending}"
        if name and key in last:
            return last[key] - first.get(key, 0.0)
    return None


def _mean_between(first: dict[str, float], last: dict[str, float], name: str | None) -> float | None:
    count = _delta(first, last, name, ("_count",))
    total = _delta(first, last, name, ("_sum",))
    return total / count if count and total is not None else None
