"""A recipe: how an engine is started, spoken to and stopped, as data. In goes YAML, out comes a checked `Recipe`.

The shipped recipes are the files of ``launchers/``; a name in a scenario is a file name there, and ``./mine.yaml`` is a
file of the user's. A recipe holds placeholders and nothing else: no conditions, no loops, no expressions. The day one
wants an ``if``, write a program beside it and let the recipe call that, as ``hf.yaml`` does.

Placeholders anywhere: ``{model} {tokenizer} {served_name} {port} {python} {launchers} {image} {run_id} {container}
{folder} {grace_s}``; in an option also ``{value}``; in ``exact`` only ``{n}``. As a whole element of a command:
``{options}`` (where the options go; at the end if it is absent) and, in ``docker.run``, ``{flags}`` (the options' own
``run`` words), ``{env}`` (``-e NAME`` for every name to pass), ``{mounts}`` (local model folders, read-only) and
``{labels}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from loadgen.launch.recipe_file import word

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
"""Lower-case names in braces; JSON in a command line has quotes after its braces and is left alone."""

NAMES = frozenset(
    ("model", "tokenizer", "served_name", "port", "python", "launchers", "image", "run_id", "container", "folder")
) | {"grace_s"}
SPLICES = frozenset(("options", "flags", "env", "mounts", "labels"))


def text_of(value: Any) -> str:
    """A scenario's value as one word of a command line: true and false in YAML's spelling, lists joined by commas,
    mappings as compact JSON (what ``--speculative-config`` and its like read)."""
    if isinstance(value, dict):
        import json

        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return ",".join(text_of(item) for item in value)
    return word(value)


def _text(value: Any) -> Any:
    return text_of(value) if isinstance(value, (bool, int, float)) else value


Text = Annotated[str, BeforeValidator(_text)]
"""A word: ``--port 80`` may stand in YAML as a number."""


SeenWord = Literal[
    "running", "waiting", "kv_use", "batch", "prompt_tokens", "generation_tokens", "cached_tokens", "preemptions",
    "queue_s", "ttft_s", "memory_peak", "memory_reserved",
]  # fmt: skip
"""What telemetry reads from a metrics page; ``batch``, ``queue_s`` and ``ttft_s`` are histograms there."""


class Part(BaseModel):
    """What every part of a recipe has in common: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(Part):
    """A call after the start, before the server counts as ready (TabbyAPI's load, say). Any 2xx is good."""

    path: str
    method: str = "POST"
    body: dict[str, Any] | None = None


class Effect(Part):
    """What an option does. A bare list is ``args``."""

    args: list[Text] = []
    """Words of the engine's command line."""
    run: list[Text] = []
    """Words of the container engine's command line, before the image."""
    env: dict[str, Text] = {}
    request: dict[str, Any] = {}
    """Fields added to every request, whatever its protocol."""
    file: dict[str, dict[str, Any]] = {}
    """File name (one of the recipe's ``files``) -> what is merged into it."""
    preload: list[Call] = []

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if value is None:
            return {}
        return {"args": value} if isinstance(value, list) else value


class Option(Effect):
    """One word of the scenario's ``options``.

    A list with ``{value}`` takes any value; a list without it is a switch (true adds it, false does not). A mapping
    whose keys are none of this class's fields is a map of words: ``quantization: {awq: [...], fp8: [...]}``.
    ``each`` repeats the effect for every item of a list instead of joining the items. ``replaces`` names options whose
    defaults it takes the place of (named devices: of all GPUs). ``note`` is a doubt that goes into the report when the
    option is used ("a share of the total memory", where engines differ).
    """

    words: dict[str, Effect] = {}
    each: bool = False
    replaces: list[str] = []
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"args": value}
        if isinstance(value, dict) and not set(value) & set(cls.model_fields):
            return {"words": value}
        return value

    @property
    def takes_value(self) -> bool:
        """True if the option's value is written somewhere; else it is a switch."""
        own = (self.args, self.run, self.env, self.request, self.file, [call.model_dump() for call in self.preload])
        return any("{value}" in string for _, string in placed_strings(list(own)))


class Wire(Part):
    """What an engine needs in the requests of one protocol."""

    request: dict[str, Any] = {}
    """Fields added to every request."""
    exact: dict[str, Any] = {}
    """Fields that make a reply exactly N tokens long; empty where there is no way, or the backend does it by itself."""


def _with_containers_own(options: Any) -> Any:
    return {**CONTAINER_OPTIONS, **options} if isinstance(options, dict) else options


CONTAINER_RUN = ["docker", "run", "--rm", "--init", "--name", "{container}"]
CONTAINER_RUN += ["{labels}", "{flags}", "{env}", "{mounts}", "{image}"]
CONTAINER_OPTIONS: dict[str, Any] = {
    "gpus": {"run": ["--gpus", "{value}"]},
    "devices": {"run": ["--gpus", '"device={value}"'], "replaces": ["gpus"]},  # its CSV: quotes keep 0,1 together
    "cpus": {"run": ["--cpuset-cpus", "{value}"]},
    "publish": {"run": ["-p", "{value}"]},
    "shm_size": {"run": ["--shm-size", "{value}"]},
    "hub_volume": {"run": ["-v", "{value}:/data"], "env": {"HF_HUB_CACHE": "/data"}},
    "volumes": {"run": ["-v", "{value}"], "each": True, "replaces": ["hub_volume"]},
}
"""What every container is started with, and docker's own words among the options. ``hub_volume`` (a volume's name, or a
folder of this machine) keeps what engines fetch from Hugging Face's hub; ``volumes`` may hold it in its place."""


class Docker(Part):
    """How the engine runs in a container; used when the target names an image, or the recipe has no other way.

    ``run`` ends with the image, ``command`` follows it. A recipe's ``options`` are added to `CONTAINER_OPTIONS`.
    """

    image: str = ""
    run: list[Text] = CONTAINER_RUN
    command: list[Text] = []
    options: Annotated[dict[str, Option], BeforeValidator(_with_containers_own)] = Field({}, validate_default=True)
    defaults: dict[str, Any] = {}
    env: dict[str, Text] = {}
    passes: list[str] = ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"]
    """Names of variables that reach the container when they are set here; by name, so that no value is in argv."""


class Ready(Part):
    """When the server counts as ready: the path answers 200, the name is listed, one token comes back."""

    path: str = "/health"
    models: str | None = None
    """Path of a model list in OpenAI's form; None where the engine has none."""
    name: str = "{served_name}"
    probe: bool = True
    timeout_s: float = Field(default=600.0, gt=0)


class Fact(Part):
    """Something that the engine says of itself, read once it is ready: from its log (the first group of a regular
    expression), from a JSON answer (``get`` and ``field``), or from its metrics page (``metric``)."""

    log: str | None = None
    number: bool = False
    """True reads what the log says as a number; a version stays text."""
    get: str | None = None
    field: str | None = None
    metric: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Fact:
        if sum(source is not None for source in (self.log, self.get, self.metric)) != 1:
            raise ValueError("a fact has exactly one of log, get and metric")
        if self.log is not None and re.compile(self.log).groups != 1:
            raise ValueError("the expression of a fact has exactly one group, the value")
        return self


class Stop(Part):
    """How the server ends: SIGTERM to its group, ``grace_s``, SIGKILL, then ``commands``. A bare list is a command."""

    grace_s: float = Field(default=15.0, ge=0)
    commands: list[list[Text]] = []

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"commands": [value] if value else []}
        return value


class Recipe(Part):
    """A whole recipe. ``name`` is the file's stem, ``path`` the file."""

    name: str
    path: Path
    about: str = ""
    install: str = ""
    """How to get the engine, as a sentence for someone who does not have it."""
    command: list[Text] = []
    python_command: list[Text] = []
    """The command when the target names a ``python``; without it ``command`` is used for that too."""
    docker: Docker | None = None
    options: dict[str, Option] = {}
    defaults: dict[str, Any] = {}
    """Options that are set unless the scenario says otherwise (null takes one away)."""
    env: dict[str, Text] = {}
    files: dict[str, dict[str, Any]] = {}
    """Files written into the server's folder, its working directory, as JSON (which is YAML as well)."""
    preload: list[Call] = []
    ready: Ready = Ready()
    metrics: str | None = None
    """Path of the Prometheus page; None where the engine has none."""
    seen: dict[SeenWord, str] = {}
    """Our word for what an engine says of itself while it runs -> its metric (with or without ``_total``)."""
    reset_peak: str | None = None
    """Path that a POST to begins the peaks of ``seen`` anew; without it they are since the start, and not used."""
    backend: str = "openai_chat"
    """The protocol that is spoken unless the target names another; ``request`` and ``exact`` are its fields."""
    request: dict[str, Any] = {}
    exact: dict[str, Any] = {}
    backends: dict[str, Wire] = {}
    """The other protocols that the engine speaks, each with fields of its own."""
    served_name: str = ""
    """The name that requests must use, where the engine dictates one."""
    api_key: str = ""
    """The variable from which the engine takes its API key; empty where it has none."""
    version: list[Text] = []
    """A command that prints the installed version."""
    facts: dict[str, Fact] = {}
    stop: Stop = Stop()
    notes: list[str] = []
    """Sentences that go into every report of this engine."""

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        if not self.command and not self.docker:
            raise ValueError("a recipe has a `command` or a `docker` section")
        if self.backend in self.backends:
            raise ValueError(f"{self.backend} is the recipe's `backend`: its fields stand in `request` and `exact`")
        for name, option in self.all_options():
            for effect in (option, *option.words.values()):
                if unknown := set(effect.file) - set(self.files):
                    raise ValueError(f"option {name} writes into {sorted(unknown)[0]!r}, which `files` does not have")
            if option.words and option.args:
                raise ValueError(f"option {name} has both `words` and `args`; give the args to the words")
        return self

    @property
    def place(self) -> str:
        """The file as errors name it: ``launchers/vllm.yaml``."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def wires(self) -> dict[str, Wire]:
        """What each protocol that the engine speaks needs, by the backend's name; the default comes first."""
        return {self.backend: Wire(request=self.request, exact=self.exact), **self.backends}

    def all_options(self) -> Iterator[tuple[str, Option]]:
        """Every option of the recipe, those of its docker section included."""
        yield from self.options.items()
        if self.docker:
            yield from self.docker.options.items()


def placed_strings(node: Any, steps: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every string in nested lists and mappings, with the steps that lead to it."""
    if isinstance(node, str):
        yield steps, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from placed_strings(value, (*steps, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from placed_strings(value, (*steps, index))
