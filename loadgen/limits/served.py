"""What every target of a run serves, and on what: kept at run time, so that floors can be told on any machine later.

In: the cells of a scenario. Out: a `Serving`, which is small and stands in run.json under ``served``: the fields of
each model's config.json (its sizes, never its weights) and the words of a target that its floor and its normalised
rates depend on. Nothing is computed here from them; ``floor.py`` and ``normalise.py`` do that when a report is made.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.launch.command import is_local
from loadgen.launch.hubs import hub_cache
from loadgen.launch.models import model_revision
from loadgen.scenario import Cell, MadeModel, Target, Workload
from loadgen.targets import local_model, random_weights

VERSION = 1
LONGEST_CONFIG = 256 * 1024
"""Bytes; a config.json that is longer is none of a language model."""

_PARALLEL = ("tensor_parallel", "pipeline_parallel", "data_parallel")
_OPTIONS = ("dtype", "quantization", "kv_dtype", "speculative", "expert_parallel", "sharding", *_PARALLEL)
_RANDOM = {"ids": "random token ids", "words": "random words"}


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A target in one configuration.

    ``config`` counts into `Serving.configs`, None where no config.json is at hand. ``options`` are those of its words
    that change what a step moves or does. ``weights`` says how they were made if they are random, None if nobody knows
    (an endpoint), and is empty for those of its checkpoint. ``gpu``, ``gpus``, ``bandwidth_gb_s`` and
    ``price_per_hour`` are the scenario's own words.
    """

    name: str
    config: int | None = None
    launched: bool = True
    options: dict[str, Any] = {}
    weights: str | None = None
    devices: tuple[int | str, ...] = ()
    gpu: str | None = None
    gpus: int | None = None
    bandwidth_gb_s: float | None = None
    price_per_hour: float | None = None

    def parallel(self, word: str) -> int:
        """The number behind an option such as tensor_parallel; 1 where it is not given or is no number."""
        text = str(self.options.get(word, 1))
        return int(text) if text.isdecimal() and int(text) else 1

    def gpu_count(self, machine: Sequence[Mapping[str, Any]]) -> int | None:
        """On how many GPUs it runs, None where nobody says. ``machine`` are those of the machine that launched it.

        The scenario's own number comes first, then the product of its parallel options, its devices, and the GPU of a
        machine that has one. Engines differ in how many of several they take by themselves.
        """
        if self.gpus is not None:
            return self.gpus
        stated = math.prod(map(self.parallel, _PARALLEL))
        if stated > 1 and (machine or self.gpu):
            return stated
        if not self.launched or not machine:
            return 1 if self.gpu else None
        given = any(word in self.options for word in _PARALLEL)
        return 1 if given or len(machine) == 1 else len(self.devices) or None


class ServedCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: ``targets`` count into `Serving.targets`. ``concurrency`` is None in an open loop. ``prompts`` is what
    was asked, in words, and ``random`` whether it was made of chance."""

    concurrency: int | None
    prompts: str
    random: bool
    targets: dict[str, int]


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """All targets of a run. ``configs`` are config.json files as they were read."""

    v: int = VERSION
    configs: tuple[dict[str, Any], ...] = ()
    targets: tuple[Served, ...] = ()
    cells: dict[str, ServedCell] = {}

    def of(self, cell: str, target: str) -> Served | None:
        """A target in a cell; None in runs that did not keep it."""
        found = self.cells.get(cell)
        return None if found is None or target not in found.targets else self.targets[found.targets[target]]


def serving(cells: Sequence[Cell], folder: Path) -> Serving:
    """What the targets of these cells serve. Paths start from ``folder``. A config that cannot be read is left out."""
    configs: list[dict[str, Any]] = []
    targets: list[Served] = []
    found: dict[str, ServedCell] = {}
    for cell in cells:
        numbers = {}
        for name, target in cell.scenario.targets.items():
            config = read_config(target, folder)
            number = None if config is None else _place(configs, config)
            numbers[name] = _place(targets, _served(target, folder, number))
        workload = cell.scenario.workload
        found[cell.id] = ServedCell(
            concurrency=cell.scenario.load.concurrency,
            prompts=prompts_of(workload),
            random=is_random(workload.prompts, workload.settings),
            targets=numbers,
        )
    return Serving(configs=tuple(configs), targets=tuple(targets), cells=found)


def stored(described: Mapping[str, Any]) -> Serving:
    """The `Serving` of a run.json; an empty one where the run kept none. Raises UsageError for one that is damaged."""
    try:
        found = msgspec.convert(described.get("served") or {}, Serving)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"run.json: served: {error}; take this key out of it, and the report has no floors."
        ) from error
    numbers = [number for cell in found.cells.values() for number in cell.targets.values()]
    if not all(0 <= number < len(found.targets) for number in numbers):
        raise UsageError("run.json: served: a cell names a target that is not there; take this key out of it.")
    return found


def prompts_of(workload: Workload) -> str:
    """What is asked, in words: it decides which experts are chosen."""
    settings = workload.settings
    if workload.prompts == "synthetic":
        return _RANDOM.get(str(settings.get("kind", "ids")), "random prompts")
    tags = settings.get("tags")
    about = f" of {', '.join(map(str, tags))} alone" if isinstance(tags, list | tuple) and tags else ""
    if workload.prompts == "trace":
        return _RANDOM["ids"]
    if workload.prompts == "mix":
        return "a mix of prompts"
    if workload.prompts in ("jsonl", "sharegpt"):
        return f"the prompts of a {workload.prompts} file"
    return f"{workload.prompts} prompts{about}"


def is_random(prompts: str, settings: Mapping[str, Any]) -> bool:
    """Whether what is asked is made of chance, as far as any of it is."""
    if prompts == "mix":
        parts = settings.get("mix")
        said = parts.values() if isinstance(parts, Mapping) else ()
        return any(isinstance(part, Mapping) and is_random(str(part.get("prompts")), part) for part in said)
    return prompts in ("synthetic", "trace")


def read_config(target: Target, folder: Path) -> dict[str, Any] | None:
    """The fields of a target's config.json: of the file that it names, of its model's folder, of the hub's cache."""
    path = _config_path(target, folder)
    try:
        if path is None or path.stat().st_size > LONGEST_CONFIG:
            return None
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _config_path(target: Target, folder: Path) -> Path | None:
    if target.config is not None:
        named = folder / Path(os.path.expanduser(target.config))
        return named / "config.json" if named.is_dir() else named
    if isinstance(target.model, MadeModel):
        return folder / target.model.config
    if (model := local_model(folder, target)) is not None:
        return Path(model) / "config.json"
    if is_local(target.model) or not target.launched or target.options.get("hub") == "modelscope":
        return None
    return _cached(target.model, {**os.environ, **target.env})


def _cached(model: str, environ: Mapping[str, str]) -> Path | None:
    """The config of a hub's model as this machine's cache holds it; the engine may have brought it there."""
    revision = model_revision(model, environ)
    if revision is None:
        return None
    return hub_cache(environ) / f"models--{model.replace('/', '--')}" / "snapshots" / revision / "config.json"


def _served(target: Target, folder: Path, config: int | None) -> Served:
    launched = target.launched
    model = local_model(folder, target)
    return Served(
        name=Path(target.model.config).stem if isinstance(target.model, MadeModel) else Path(target.model).name,
        config=config,
        launched=launched,
        options={word: target.options[word] for word in _OPTIONS if word in target.options},
        weights=random_weights(target, model) or ("" if launched else None),
        devices=target.devices or (),
        gpu=target.gpu,
        gpus=target.gpus,
        bandwidth_gb_s=target.bandwidth_gb_s,
        price_per_hour=target.price_per_hour,
    )


def _place(known: list[Any], one: Any) -> int:
    """Where it stands in a list that has everything once; it is added if it is new."""
    if one not in known:
        known.append(one)
    return known.index(one)
