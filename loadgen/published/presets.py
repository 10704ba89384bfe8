"""Presets: what "speed" means in a family of published tables, so that a column is compared only with its like.

In: ``preset: qwen2``. Out: the metric that its speed is, and what a load must be for it to be that. The definitions of
the metrics are in ``metrics.py``; docs/definitions.md compares them with those of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from loadgen.metrics import METRICS, Measure
from loadgen.published.tables import table


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One definition of speed. ``single`` is the metric of one request at a time (``load.concurrency: 1``), ``burst``
    that of all prompts at once (``load.burst``), None where its tables have no such thing. ``source`` is where the
    definition is stated."""

    name: str
    single: str
    burst: str | None
    source: str

    def speed(self, burst: bool) -> str | None:
        """The metric of a load."""
        return self.burst if burst else self.single

    def measure(self, burst: bool) -> Measure | None:
        """The same as a measure: requests count by their mean."""
        name = self.speed(burst)
        if name is None:
            return None
        return Measure(name, None if METRICS[name].per == "window" else "mean")

    @property
    def others(self) -> frozenset[str]:
        """Rates of tokens by another definition."""
        rates = {name for name, metric in METRICS.items() if metric.unit == "tok/s"}
        return frozenset(rates - {self.single, self.burst})


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "qwen2": Preset(
            name="qwen2",
            single="request_tok_s",
            burst="total_tok_s",
            source="Qwen's speed benchmarks of Qwen2 and Qwen2.5; the throughput table of Qwen2-57B-A14B",
        ),
        "qwen3": Preset(
            name="qwen3",
            single="request_total_tok_s",
            burst=None,
            source="Qwen's speed benchmark of Qwen3",
        ),
    }
)
"""The presets by name. Qwen2 divides the 2048 generated tokens by the whole time, prefill included, and in the table of
all prompts at once counts prompt tokens as well; Qwen3 counts prompt tokens in its table of single requests."""


def preset_of(named: str | None, published: str | None) -> Preset | None:
    """The preset that a scenario names, else that of its published table; None where neither says one.

    Raises UsageError for a table that does not exist.
    """
    name = named or (table(published).preset if published is not None else None)
    return PRESETS[name] if name is not None else None
