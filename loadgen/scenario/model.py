"""The words of a scenario and their types: pydantic models (`target` and `telemetry` have files of their own).

In: plain data, after profiles, ``extends``, ``--set`` and environment references were resolved (``loading.py``).
Out: frozen `Scenario` objects. Only what can be said of one value alone is checked here; rules between values
(closed or open loop, engine or endpoint) are in ``rules.py``, because a matrix may supply one of the two.
The names of fields are the names in the file; units are suffixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, Strict, StringConstraints

from loadgen.scenario.kinds import (
    Count,
    EnvName,
    Measure,
    NotNegative,
    NotNegativeSeconds,
    Objective,
    Pieces,
    Positive,
    Primary,
    Processes,
    References,
    Repeats,
    Scalar,
    Seconds,
    Share,
    Slots,
    Text,
    Texts,
    Words,
)
from loadgen.scenario.output import Output
from loadgen.scenario.search import SearchWord
from loadgen.scenario.target import Target
from loadgen.scenario.telemetry import Telemetry

NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"
TARGET = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,39}$"  # folders of a run carry these names, so no leading dot


class Workload(Words):
    """What is asked. Keys that are not listed here are settings of the source of prompts, which checks them."""

    model_config = ConfigDict(extra="allow")

    prompts: Text = Field(description="the source: a file in loadgen/workloads, such as natural or synthetic")
    template: Literal["server", "client"] = Field(default="server", description="who renders the model's chat template")
    output: Output = Field(default=Output(), description="{exact: N} or {max: N}; N a number, a distribution, or trace")
    stream: bool = Field(default=True, description="false: whole replies, and no time to first token")
    sampling: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0}, description="sent with every request")
    save_text: bool = Field(default=False, description="keep the text of replies in the records")
    routing_check: bool = Field(default=False, description="the middle cell on other prompts too: do experts mind?")

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that belong to the source of prompts."""
        return dict(self.model_extra or {})


ArrivalKind = Literal["constant", "poisson", "gamma", "burst", "piecewise", "timestamps", "trace"]


class Load(Words):
    """When requests are sent, for how long, and what ends them. Exactly one of concurrency (closed loop), rate_rps,
    burst, rates and timestamps (open loop) is set in a cell; none with ``arrival: trace``."""

    concurrency: Slots | None = Field(default=None, description="closed loop: requests held in flight")
    rate_rps: Positive | None = Field(default=None, description="open loop: requests a second")
    arrival: ArrivalKind | None = Field(
        default=None,
        description="open loop: shape of the arrivals, or trace: the times of prompts: trace; default: poisson",
    )
    burstiness: NotNegative = Field(default=1.0, description="gamma: coefficient of variation of the gaps")
    rates: Pieces | None = Field(default=None, description="piecewise: [from second, requests a second]")
    burst: Slots | None = Field(default=None, description="this many requests at once, at the start")
    timestamps: Text | None = Field(default=None, description="file to replay: one offset in seconds a line")
    ramp_s: NotNegativeSeconds = Field(default=0.0, description="closed loop: slots start evenly over this time")
    warmup_s: NotNegativeSeconds | Literal["auto"] = Field(
        default=5.0, description="sent before the window and not measured"
    )
    warmup_tokens: Count | None = Field(
        default=None, description="most tokens of a reply in the warm-up, where those of the window are long"
    )
    window_s: Seconds | None = Field(default=None, description="length of the measured window; or requests")
    requests: Count | None = Field(default=None, description="number of measured requests; or window_s")
    interval_s: Seconds | None = Field(
        default=None,
        ge=1,
        description="keep the repeat in intervals of this length; default: 60 (a sixtieth of a window under an hour) "
        "for a window of 10 min or more, else none",
    )
    drain_s: NotNegativeSeconds = Field(
        default=30.0, description="after the window: how long requests in flight may take to end"
    )
    max_in_flight: Count | None = Field(
        default=None, description="open loop: above it a request is dropped and counted"
    )
    max_rps: Positive | None = Field(default=None, description="courtesy cap for endpoints that are not ours")
    timeout_s: Seconds = Field(default=600.0, description="a whole request")
    stall_timeout_s: Seconds = Field(default=60.0, description="no byte for this long")
    connect_timeout_s: Seconds = Field(default=10.0, description="making a connection")
    max_event_bytes: Count = Field(default=10_485_760, description="longest event of a stream that is read")
    workers: Processes | Literal["auto"] = Field(default="auto", description="processes that drive the load")
    fleet: Literal["local", "ray"] = Field(
        default="local", description="where workers run: on this machine, or one on each node of a Ray cluster"
    )
    driver: Literal["loadgen", "httpx", "openai", "tgi"] = Field(default="loadgen", description="client that sends")

    @property
    def closed(self) -> bool:
        """True for a closed loop: the next request of a slot waits for the reply to the one before."""
        return self.concurrency is not None

    @property
    def kind(self) -> ArrivalKind | None:
        """The kind of arrival of an open loop, None for a closed one."""
        if self.closed:
            return None
        for word, kind in ARRIVAL_WORDS.items():
            if getattr(self, word) is not None:
                return self.arrival or kind
        return self.arrival


ARRIVAL_WORDS: dict[str, ArrivalKind] = {
    "rate_rps": "poisson",
    "burst": "burst",
    "rates": "piecewise",
    "timestamps": "timestamps",
}
"""What makes a loop open, and the kind of arrival that it means unless `Load.arrival` says another."""


class Matrix(Words):
    """The cells of a scenario, as in GitHub's workflows. Every other key is an axis: a dotted path into the scenario
    (or its last component, where that is unique) with its values."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[tuple[Scalar, ...], Strict(False)]] = Field(init=False)

    include: Annotated[tuple[dict[str, Any], ...], Strict(False)] = Field(
        default=(), description="cells added or completed"
    )
    exclude: Annotated[tuple[dict[str, Scalar], ...], Strict(False)] = Field(default=(), description="cells left out")

    @property
    def axes(self) -> dict[str, tuple[Scalar, ...]]:
        """Values by axis, as they are written."""
        return dict(self.__pydantic_extra__ or {})


class Comparison(Words):
    """Which targets are held against which, and how."""

    baseline: str | None = Field(default=None, description="default: the first target")
    candidates: Texts | None = Field(default=None, description="default: all others")
    scope: Literal["restart", "instance"] = Field(
        default="restart", description="restart the servers between repeats, or not"
    )
    share_devices: bool = Field(default=False, description="scope instance: servers may stand on the same GPUs")
    metric: Measure = Field(default="output_tok_s", description="decides the verdict; output_tok_s, p50 ttft ...")
    margin: dict[Measure, Share] = Field(
        default_factory=dict, description="by metric: smaller differences do not matter"
    )
    until: Share | None = Field(
        default=None,
        description="add repeats, two at a time and 30 at most, until the interval of every cell is this narrow on "
        "either side, such as 1%; `repeats` is then the fewest",
    )
    factor: Texts = Field(
        default=("model",), description="what is meant to differ: model, engine, dtype, another option ..."
    )


class Nightly(Words):
    """What ``loadgen nightly`` watches, and whom it tells."""

    primary: Annotated[tuple[Primary, ...], Strict(False), Field(min_length=1)] | None = Field(
        default=None, description="measures that raise alarms; default: output_tok_s, p50 ttft"
    )
    gate: dict[Measure, Share] = Field(
        default_factory=dict, description="by measure: a smaller effect raises no alarm; default: 3 %, 5 %, tails 10 %"
    )
    priority: Texts = Field(
        default=(), description="cells that --budget drops last, the most important first; default: the matrix's order"
    )
    webhook_env: EnvName | None = Field(
        default=None, description="name of the environment variable that holds a webhook's URL, as Slack has them"
    )


class When(Words):
    """What a machine must have for a profile to be chosen."""

    gpus: int = Field(default=0, ge=0, description="at least this many GPUs")
    gpu_memory_gb: NotNegative = Field(default=0.0, description="each with at least this much memory")
    gpu_name: str | None = Field(default=None, description="with this in their name")


class Scenario(Words):
    """A whole scenario. With a matrix it is the pattern of its cells (see ``matrix.expand``)."""

    schema_: Literal["loadgen/v1"] = Field(default="loadgen/v1", alias="schema", description="version of this language")
    name: Annotated[str, StringConstraints(pattern=NAME)] = Field(
        default="scenario", description="default: the file's name"
    )
    description: str = Field(default="", description="what is measured, and why")
    published: Text | None = Field(
        default=None, description="the published table that is measured again: a file in loadgen/published"
    )
    preset: Literal["qwen2", "qwen3"] | None = Field(
        default=None, description="whose definition of speed holds; default: the published table's"
    )
    seed: int = Field(default=1, ge=0, description="of every random number")
    targets: Annotated[
        dict[Annotated[str, StringConstraints(pattern=TARGET)], Target], Field(min_length=1, description="by name")
    ]
    workload: Workload
    load: Load
    matrix: Matrix = Matrix()
    repeats: Repeats = Field(
        default=6,
        description="of every cell; an interval needs 3; with comparison.until the fewest (an even number from 6 on)",
    )
    comparison: Comparison | None = Field(default=None, description="of the targets, in every cell")
    objectives: Annotated[tuple[Objective, ...], Strict(False)] = Field(
        default=(), description="such as p99 ttft < 0.5 s"
    )
    search: SearchWord | None = Field(
        default=None, description="max_rate or max_concurrency under the objectives, or a sweep; sets the load itself"
    )

    nightly: Nightly = Nightly()
    telemetry: Telemetry = Telemetry()

    _references: References = PrivateAttr(default_factory=dict)

    @classmethod
    def build(cls, data: Mapping[str, Any], references: References) -> Scenario:
        """The scenario of plain data, which remembers by path the texts that referred to the environment.

        Raises pydantic's ValidationError.
        """
        scenario = cls.model_validate(data)
        scenario._references = dict(references)
        return scenario

    @property
    def references(self) -> References:
        """By path: values as they were written, with ``${env:NAME}``, before the environment's values replaced it."""
        return self._references
