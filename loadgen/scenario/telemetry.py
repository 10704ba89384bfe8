"""The words of ``telemetry``: what must be known of the machines, and where the GPUs of other machines are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, WithJsonSchema

from loadgen.scenario.kinds import Words
from loadgen.scenario.words import base_url

EVERY = "*"
"""Stands for all targets that are endpoints, where one exporter is named without them."""

_BY_TARGET = {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}]}


def _page(text: str) -> str:
    """The address of an exporter's page; without a path it is /metrics."""
    url = base_url(text)
    if not url.startswith("http"):
        raise ValueError("{} is no address; write it like http://gpu-host:9400/metrics")
    return url if "/" in url.split("://", 1)[1] else f"{url}/metrics"


def _by_target(value: Any) -> Any:
    return {EVERY: value} if isinstance(value, str) else value


class Telemetry(Words):
    """What is seen besides the requests: GPUs, memory, energy, the engine's own counters."""

    require: Annotated[tuple[Literal["energy", "gpus", "engine"], ...], Strict(False)] = Field(
        default=(), description="what must be there, else nothing is measured: energy, gpus, engine (its own counters)"
    )
    dcgm: Annotated[
        dict[str, Annotated[str, AfterValidator(_page)]], BeforeValidator(_by_target), WithJsonSchema(_BY_TARGET)
    ] = Field(
        default_factory=dict,
        description="page of a DCGM exporter beside endpoints: http://gpu-host:9400, or one by target",
    )

    def exporter(self, target: str, endpoint: bool) -> str | None:
        """The exporter's page for a target; one that is named without targets is for endpoints."""
        pages: Mapping[str, str] = self.dcgm
        return pages.get(target) or (pages.get(EVERY) if endpoint else None)
