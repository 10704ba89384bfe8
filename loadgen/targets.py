"""A target of the scenario, as it is to be launched and asked; and what is wrong with it, before anything is started.

In: a `Target` and the scenario's folder. Out: what launch.py and the driver need of it. Nothing here starts anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loadgen import backends, launch, workloads
from loadgen.backends import RequestOptions
from loadgen.drive.http import parse_endpoint
from loadgen.errors import UsageError
from loadgen.launch.command import is_local
from loadgen.record import Prompt
from loadgen.redact import of_url, secret_values
from loadgen.scenario import Cell, Loaded, Target
from loadgen.scenario.secrets import may_be_secret
from loadgen.scenario.target import MadeModel
from loadgen.shapes.model_config import read_shape
from loadgen.summary import Doubt
from loadgen.workloads.mix import EVERY
from loadgen.workloads.replies import open_source


def spec_of(folder: Path, name: str, target: Target, model: str | None) -> launch.LaunchSpec:
    """What is to be launched for a target; ``model`` is its folder where it has one already."""
    assert target.engine is not None
    made = isinstance(target.model, MadeModel)
    return launch.LaunchSpec(
        name=name,
        engine=target.engine,
        model=model or str(target.model),
        tokenizer=target.tokenizer,
        served_name=target.served_name or (name if made else None),
        options=target.options,
        args=target.args,
        env=target.env,
        python=target.python,
        image=target.image,
        devices=target.devices or (),
        cpus=target.cpus or (),
        folder=folder,
        api_key_env=target.api_key_env,
        backend=target.backend,
    )


def local_model(folder: Path, target: Target) -> str | None:
    """The folder of a target's model, None for one that is on a hub or still to be made."""
    if not isinstance(target.model, str):
        return None
    path = folder / Path(os.path.expanduser(target.model))
    return str(path) if path.is_dir() else None


def check(loaded: Loaded, cells: list[Cell], ask: bool = True) -> None:
    """Finds what could not be started or asked (unknown words, a missing model, a bad file of prompts) beforehand; with
    ``ask`` hubs are asked for their models.

    Raises LoadgenError.
    """
    folder = loaded.path.parent.absolute()
    checked: list[tuple[str, Target]] = []
    recipes: dict[str | None, launch.Recipe | None] = {None: None}  # each takes some 30 ms to read
    for cell in cells:
        for name, target in cell.scenario.targets.items():
            if target.engine not in recipes:
                recipes[target.engine] = _recipe(folder, target)
            if (name, target) not in checked:  # most are the same in every cell, and a hub is asked once
                check_target(folder, name, target, recipes[target.engine], ask)
                checked.append((name, target))
            check_asking(folder, cell, name, recipes[target.engine])


def _recipe(folder: Path, target: Target) -> launch.Recipe | None:
    return launch.load_recipe(target.engine, folder) if target.engine is not None else None


def check_target(
    folder: Path, name: str, target: Target, recipe: launch.Recipe | None = None, ask: bool = True
) -> None:
    """Finds what a target could not be started or asked with, without starting anything; with ``ask`` a hub is asked
    for its model. ``recipe`` is its engine's, if that was read already. Raises LoadgenError."""
    headers_of(target)
    if target.config is not None:
        try:
            read_shape(folder / Path(os.path.expanduser(target.config)))
        except UsageError as error:
            raise UsageError(f"targets.{name}.config: {error}") from error
    for url in target.urls:
        try:
            parse_endpoint(url, target.proxy)
        except UsageError as error:
            raise UsageError(f"targets.{name}: {error}") from error
    recipe = recipe or _recipe(folder, target)
    if recipe is None:
        return
    launch.wire_of(recipe, name, target.backend)
    if target.launched:
        spec = spec_of(folder, name, target, "model" if isinstance(target.model, MadeModel) else None)
        command = launch.render(recipe, spec, port=1, run_id="check", launchers=launch.launchers_folder())
        _check_model(folder, name, target, command, ask and "hub" in recipe.options)


def check_asking(folder: Path, cell: Cell, name: str, recipe: launch.Recipe | None) -> None:
    """Finds a workload, a file of prompts or a backend that cannot be used: it makes the first request of the cell, and
    of a mix the first of each part.

    Raises UsageError. What needs the files of a model that is yet to be made is found when that is there.
    """
    target, workload = cell.scenario.targets[name], cell.scenario.workload
    backend = backends.load(target.backend or (recipe.backend if recipe else "openai_chat"))
    model = local_model(folder, target)
    if isinstance(target.model, MadeModel) and target.launched:
        return
    context = workloads.Context(
        seed=0,
        **workload.output.asked,
        folder=str(folder),
        template=workload.template,
        model_path=model,
    )
    source = open_source(workload.prompts, workload.settings, context)
    for prompt in _one_of_each(source, len(workload.settings.get("mix", ())) or 1):
        backend.body(prompt, options_of(cell, target, "", {}, {}))


def _one_of_each(source: workloads.Source, parts: int) -> Iterable[Prompt]:
    """The first prompt of each part of a workload."""
    found: dict[str, Prompt] = {}
    for index in range(EVERY):
        prompt = source.session(index)[0]
        found.setdefault(prompt.source, prompt)
        if len(found) == parts:
            break
    return found.values()


def _check_model(folder: Path, name: str, target: Target, command: launch.Command, asks_hub: bool) -> None:
    """A container has a cache of its own, and sees of this machine what is mounted; some engines ask no hub at all."""
    if isinstance(target.model, MadeModel):
        if not (folder / target.model.config).is_file():
            raise UsageError(f"targets.{name}.model.config: there is no file {folder / target.model.config}.")
        return
    here = command.container is None
    mounted = any(word.endswith(":ro") and word.startswith(f"{command.model}:") for word in command.argv)
    looked_for = here or mounted if is_local(target.model) else here and asks_hub
    if not looked_for:
        return
    environ = {**os.environ, **command.env}
    if sentence := launch.missing_model_sentence(target.model, environ, folder=folder, ask=True):
        raise UsageError(f"targets.{name}.model: {sentence}")


def models_folder() -> Path:
    """Where models with random weights are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loadgen" / "models"


def options_of(
    cell: Cell, target: Target, served_name: str, request: dict[str, Any], exact: dict[str, Any]
) -> RequestOptions:
    """What all requests of a target have in common; ``request`` and ``exact`` are the engine's own fields."""
    workload = cell.scenario.workload
    return RequestOptions(
        model=served_name,
        stream=workload.stream,
        sampling=workload.sampling,
        fields={**request, **target.request},
        exact_fields=exact if target.exact is None else target.exact,
    )


def secrets_of(target: Target) -> list[str]:
    """Values of a target that must not be written anywhere: its key, headers and variables of the server that are
    named like secrets, the password of its proxy."""
    named = {**target.headers, **target.env}
    given = [str(value).removeprefix("Bearer ") for name, value in named.items() if may_be_secret(name)]
    key = os.environ.get(target.api_key_env or "")
    return [value for value in (key, *given, *of_url(target.proxy or "")) if value]


def hidden_of(targets: Iterable[Target]) -> tuple[str, ...]:
    """Every value that nothing which comes of these targets may show: theirs, and those of our own environment."""
    return secret_values(os.environ, [value for target in targets for value in secrets_of(target)])


def headers_of(target: Target) -> dict[str, str]:
    """Headers of every request, the key among them. Raises UsageError for a key that the environment does not have."""
    headers = dict(target.headers)
    if target.api_key_env is not None:
        key = os.environ.get(target.api_key_env)
        if not key:
            raise UsageError(f"api_key_env: the environment has no variable {target.api_key_env}; export it first.")
        headers["authorization"] = f"Bearer {key}"
    return headers


def random_weights(target: Target, model: str | None) -> str | None:
    """How a target's weights were made, if they are random; ``model`` is its folder where it has one here."""
    if isinstance(target.model, MadeModel):
        return f"made here from {Path(target.model.config).name}"
    if target.options.get("load_format") == "dummy":
        return "load_format: dummy"
    if model is not None and (Path(model) / "loadgen_made.json").exists():
        return "the model was made by loadgen"
    return None


def doubts_of(name: str, target: Target, model: str | None) -> list[Doubt]:
    """What weakens every number of a target; ``model`` is its folder where it has one here."""
    how = random_weights(target, model)
    if how is None:
        return []
    text = (
        f"The weights of {name} are random ({how}): its speed is that of the architecture, and its text means nothing."
    )
    return [Doubt("random_weights", text)]
