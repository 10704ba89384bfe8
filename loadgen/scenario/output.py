"""The words for how long replies are: a number for all, a distribution, or as a trace has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from loadgen import lengths
from loadgen.errors import UsageError
from loadgen.scenario.kinds import Count, Words


def _form(value: Any) -> str:
    return "(drawn)" if isinstance(value, Mapping) else "(trace)" if isinstance(value, str) else "(number)"


def _distribution(value: dict[str, Any]) -> dict[str, Any]:
    try:
        lengths.parse("", value)
    except UsageError as error:
        raise ValueError(str(error).lstrip(".: ").rstrip(".")) from None
    return value


OutputLength = Annotated[
    Annotated[Count, Tag("(number)")]
    | Annotated[dict[str, Any], AfterValidator(_distribution), Tag("(drawn)")]
    | Annotated[Literal["trace"], Tag("(trace)")],
    Discriminator(_form),
]
"""Tokens of a reply: so many, as in ``loadgen.lengths``, or those of the trace that `prompts` reads."""


class Output(Words):
    """How long replies are; one of the two. Each is a number, a distribution such as ``{lognormal: {mean: 200, sd:
    300}}``, or ``trace``: as long as the trace says."""

    exact: OutputLength | None = Field(
        default=None, description="every reply has this many tokens, by the engine's own way"
    )
    max: OutputLength | None = Field(default=None, description="the model stops by itself, or at this many tokens")

    @property
    def said(self) -> int | dict[str, Any] | str | None:
        """The length as it is written; None where there is none."""
        return self.max if self.exact is None else self.exact

    @property
    def number(self) -> int | None:
        """The tokens that every request asks for alike; None where each has a number of its own."""
        return self.said if isinstance(self.said, int) else None

    @property
    def most(self) -> int | None:
        """The most tokens that any request asks for; None where nobody knows before it is drawn or read."""
        if not isinstance(self.said, dict):
            return self.number
        return lengths.most(lengths.parse("output", self.said))

    @property
    def asked(self) -> dict[str, Any]:
        """What a workload is told: ``ask_tok`` (0 where each request has its own), ``exact``, and the distribution as
        ``output``."""
        drawn = self.said if isinstance(self.said, dict) else None
        return {"ask_tok": self.number or 0, "exact": self.exact is not None, "output": drawn}
