"""The words of ``search``: which load is looked for, from where, how closely.

``search: max_rate`` is short for ``search: {find: max_rate}``. The load that is looked for stands nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from loadgen.scenario.kinds import Count, Measure, Positive, Share, Words

Find = Literal["max_rate", "max_concurrency", "sweep"]

SEARCHED = {"max_rate": ("rate_rps",), "max_concurrency": ("concurrency",), "sweep": ("concurrency", "rate_rps")}
"""The words of `load` that a search sets, by what it finds; a sweep sets one or the other."""


class Search(Words):
    """The largest load that keeps all objectives, or a sweep from idle to saturation."""

    find: Find = Field(description="max_rate or max_concurrency under the objectives, or a sweep of rates and its knee")
    start: Positive | None = Field(default=None, description="max_*: the load that is tried first; default: 1")
    most: Positive | None = Field(
        default=None, description="no larger load is tried (a sweep: no more requests in flight in its closed loops)"
    )
    within: Share = Field(default=0.05, description="max_*: how close what is met and what is missed shall come")
    probes: Count = Field(default=16, description="max_*: windows that are measured at most")
    steps: Annotated[int, Field(ge=4, le=100)] = Field(default=10, description="sweep: even steps up to the maximum")
    latency: Measure | None = Field(
        default=None, description="sweep: whose knee is looked for; default: p50 ttft, of whole replies p50 e2e"
    )


def _spelled_out(value: Any) -> Any:
    return {"find": value} if isinstance(value, str) else value


SearchWord = Annotated[Search, BeforeValidator(_spelled_out, json_schema_input_type=Find | Search)]
"""What stands behind ``search:``, a word or a mapping."""
