"""The words of a target: an engine that loadgen launches, or an endpoint that exists, and the model behind it.

In: plain data. Out: frozen `Target` objects. Rules between values are in ``rules.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag

from loadgen.scenario.kinds import Count, EnvName, Gpu, Positive, Scalar, Text, Texts, Values, Variable, Words
from loadgen.scenario.words import base_url


class MadeModel(Words):
    """A model whose weights are made on this machine from a config.json; reports say so."""

    config: Text = Field(description="config.json of an architecture, relative to the scenario file")
    weights: Literal["random"] = Field(default="random", description="how the weights are made")
    seed: int = Field(default=0, ge=0, description="seed of the weights")


def _model_form(value: Any) -> str:
    return "(made)" if isinstance(value, Mapping | MadeModel) else "(id)"


class Target(Words):
    """What is measured: an engine that loadgen launches, or an endpoint that exists."""

    only: dict[str, Values] = Field(
        default_factory=dict, description="by axis: measured in cells with these values alone; default: in all"
    )
    engine: Text | None = Field(default=None, description="a recipe in launchers/, or the path of one (./mine.yaml)")
    endpoint: Annotated[str, AfterValidator(base_url)] | None = Field(
        default=None,
        description="a server that exists; then nothing is launched and engine only says how to talk to it",
    )
    endpoints: Annotated[tuple[Annotated[str, AfterValidator(base_url)], ...], Strict(False), Field(min_length=1)] | (
        None
    ) = Field(default=None, description="several servers that exist as one target; in place of endpoint")
    balance: Literal["round_robin", "least_in_flight", "sticky"] | None = Field(
        default=None,
        description="how requests are dealt to the endpoints, by each worker for its share; sticky: a conversation "
        "stays with one; default: round_robin",
    )
    backend: Text | None = Field(default=None, description="wire protocol; default: the recipe's, else openai_chat")
    model: Annotated[Annotated[Text, Tag("(id)")] | Annotated[MadeModel, Tag("(made)")], Discriminator(_model_form)] = (
        Field(description="id or path of the model (./ and ../ are relative to the scenario file), or {config: ...}")
    )
    tokenizer: Text | None = Field(default=None, description="id or path; default: the model's")
    served_name: Text | None = Field(
        default=None, description="name sent in requests; default: the recipe's, else the model"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="words of the recipe, such as dtype")
    args: Texts = Field(default=(), description="flags added to the command as they are")
    env: dict[EnvName, Variable] = Field(
        default_factory=dict, description="added to the server's environment; secrets as ${env:NAME}"
    )
    python: Text | None = Field(
        default=None, description="interpreter of the environment that the engine is installed in"
    )
    image: Text | None = Field(default=None, description="container image")
    devices: Annotated[tuple[int | str, ...], Strict(False)] | None = Field(
        default=None, description="GPUs by index or UUID; default: all"
    )
    cpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False), Field(min_length=1)] | None = Field(
        default=None, description="cores that the server is kept to; default: all"
    )
    config: Text | None = Field(
        default=None, description="the model's config.json, if it is not at hand: for its floor"
    )
    gpu: Gpu | None = Field(default=None, description="h200, h100, a100 ...: for the floor; default: as NVML says here")
    gpus: Count | None = Field(default=None, description="how many GPUs; default: as its options and devices say")
    bandwidth_gb_s: Positive | None = Field(default=None, description="of one GPU, or of a CPU's memory, as measured")
    row: dict[str, Scalar] | None = Field(
        default=None, description="the row of the published table that it stands for: {model: ..., quantization: ...}"
    )
    price_per_hour: Positive | None = Field(default=None, description="of the whole target, in a currency of yours")
    api_key_env: EnvName | None = Field(default=None, description="name of the environment variable that holds the key")
    headers: dict[str, str] = Field(default_factory=dict, description="added to every request")
    proxy: Text | None = Field(
        default=None,
        description="http://HOST:PORT between here and the endpoint; the environment's proxies are never used for it",
    )
    request: dict[str, Any] = Field(default_factory=dict, description="fields added to the body of every request")
    exact: dict[str, Any] | None = Field(
        default=None,
        description='fields that make a reply exactly N tokens long ("{n}" becomes N); default: the recipe\'s',
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints that exist; none where an engine is launched."""
        return self.endpoints or ((self.endpoint,) if self.endpoint is not None else ())

    @property
    def launched(self) -> bool:
        """True where loadgen launches the engine."""
        return not self.urls
