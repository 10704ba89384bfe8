"""The kinds of values that a scenario's words have, and what every mapping of it has in common.

Each converts nothing in silence and refuses with a sentence; the grammars are in ``words.py``. The words themselves are
in ``model.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    WithJsonSchema,
)

from loadgen.scenario.words import env_text, gpu_name, measure_text, objective_text, primary_text, share

ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

References = Mapping[tuple[str | int, ...], str]
Scalar = str | int | float | bool | None
Text = Annotated[str, StringConstraints(min_length=1)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Slots = Annotated[int, Field(ge=1, le=1_000_000)]  # each is kept in memory before the first is sent
Processes = Annotated[int, Field(ge=1, le=1_000)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]  # each stands in the plan
Seconds = Annotated[float, Field(gt=0, le=1e8)]  # three years; beyond some 300 a clock in ns has no number for it
NotNegativeSeconds = Annotated[float, Field(ge=0, le=1e8)]
Gpu = Annotated[
    str, BeforeValidator(env_text), AfterValidator(gpu_name), WithJsonSchema({"type": ["string", "integer"]})
]
Objective = Annotated[str, AfterValidator(objective_text)]
Measure = Annotated[str, AfterValidator(measure_text)]
Texts = Annotated[tuple[str, ...], Strict(False)]  # a list in YAML; strict types would want a tuple
Values = Annotated[tuple[Scalar, ...], Strict(False), Field(min_length=1)]
Pieces = Annotated[tuple[Annotated[tuple[NotNegative, NotNegative], Strict(False)], ...], Strict(False)]
Share = Annotated[
    float,
    BeforeValidator(share),
    Field(gt=0, lt=1),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"type": "string"}]}),
]
Primary = Annotated[str, AfterValidator(primary_text)]
Variable = Annotated[str, BeforeValidator(env_text), WithJsonSchema({"type": ["string", "integer"]})]


class Words(BaseModel):
    """Every mapping of a scenario: unknown keys are refused, nothing is converted in silence, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
