"""Recipe and options -> what is run: argv, environment, files, request fields. Pure: no process, no network, no disk.

The order of the words is the recipe's command, then those of its defaults that stand, then the scenario's options as
they were written, then the scenario's raw ``args``. A word that the recipe does not have is refused with the list of
those it has.
"""

from __future__ import annotations

import difflib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadgen.launch.command import Command, Container, LaunchSpec, OptionError, is_local
from loadgen.launch.fill import all_filled, deep, filled, merged
from loadgen.launch.recipe import SPLICES, Call, Docker, Effect, Option, Recipe, Wire, text_of

_Found = TypeVar("_Found")

_OFF = ("", "0", "false", "False", "None")


class _Form(msgspec.Struct, frozen=True):
    """One way of starting an engine: on the machine, by a given python, or in a container."""

    run: list[str]
    command: list[str]
    options: Mapping[str, Option]
    defaults: Mapping[str, Any]
    env: Mapping[str, str]
    docker: Docker | None


def render(
    recipe: Recipe, spec: LaunchSpec, *, port: int, run_id: str, launchers: Path, folder: Path | None = None
) -> Command:
    """The command that starts ``spec`` on ``port``. ``launchers`` is the folder of our programs, ``folder`` the
    server's own (only recipes that mount it need it). Raises OptionError for what the recipe does not have."""
    form = _form(recipe, spec)
    container = _container(form, spec, run_id, port)
    places = {"port": port, "run_id": run_id, "launchers": launchers, "folder": folder.absolute() if folder else "."}
    names = _names(recipe, spec, form) | {name: str(value) for name, value in places.items()}
    names["container"] = container.name if container else ""
    notes = list(recipe.notes)
    wire = wire_of(recipe, spec.name, spec.backend)
    effect = _sum(_effects(recipe, spec, form, names, notes), _start(recipe, form, wire), names)
    effect.env.update((name, text_of(value)) for name, value in spec.env.items())
    secret_env = _secret_env(recipe, spec)
    notes += trusted(spec)
    return Command(
        target=spec.name,
        engine=recipe.name,
        model=names["model"],
        run_id=run_id,
        argv=(*_argv(form, effect, names, secret_env), *spec.args),
        env=effect.env,
        secret_env=secret_env,
        files={name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in effect.file.items()},
        request=effect.request,
        exact=wire.exact,
        preload=tuple(effect.preload),
        backend=spec.backend or recipe.backend,
        port=port,
        served_name=names["served_name"],
        ready=recipe.ready.model_copy(update={"name": filled(recipe.ready.name, names)}),
        metrics=recipe.metrics,
        seen={str(word): metric for word, metric in recipe.seen.items()},
        reset_peak=recipe.reset_peak,
        facts=recipe.facts,
        version=() if form.docker else all_filled(recipe.version, names),
        stop=tuple(all_filled(command, names) for command in recipe.stop.commands),
        grace_s=recipe.stop.grace_s,
        container=container,
        cpus=() if form.docker else spec.cpus,
        devices=spec.devices,
        install=recipe.install,
        notes=tuple(notes),
    )


def wire_of(recipe: Recipe, target: str, backend: str | None) -> Wire:
    """What the engine needs in the requests of a backend (None: the recipe's own). Raises OptionError for a protocol
    that the recipe does not know: the fields of another would be refused by the engine, or ignored in silence."""
    return _known(f"targets.{target}.backend", backend or recipe.backend, recipe.wires, recipe)


def _argv(form: _Form, effect: Effect, names: Mapping[str, str], secret_env: Mapping[str, str]) -> Iterator[str]:
    passes = sorted({*effect.env, *secret_env, *form.docker.passes}) if form.docker else []
    splices = {
        "options": effect.args,
        "flags": effect.run,
        "env": [word for name in passes for word in ("-e", name)],
        "mounts": _mounts(names, effect),
        "labels": ["--label", f"loadgen.run={names['run_id']}", "--label", f"loadgen.server={names['container']}"],
    }
    engine = form.command if "{options}" in form.command else [*form.command, "{options}"]
    for word in (*form.run, *engine):
        name = word[1:-1]
        if name in SPLICES and word == f"{{{name}}}":
            yield from splices[name]
        else:
            yield filled(word, names)


def _form(recipe: Recipe, spec: LaunchSpec) -> _Form:
    docker = recipe.docker
    if spec.image is not None and docker is None:
        raise OptionError(f"targets.{spec.name}.image", f"{recipe.place} knows no way to run in a container.")
    if docker is not None and (spec.image is not None or not recipe.command):
        return _Form(
            docker.run,
            docker.command,
            {**recipe.options, **docker.options},
            {**recipe.defaults, **docker.defaults},
            {**recipe.env, **docker.env},
            docker,
        )
    command = recipe.python_command if spec.python is not None and recipe.python_command else recipe.command
    if spec.python is not None and not any("{python}" in element for element in command):
        raise OptionError(f"targets.{spec.name}.python", f"{recipe.place} does not start its engine by a python.")
    return _Form([], command, recipe.options, recipe.defaults, recipe.env, None)


def _names(recipe: Recipe, spec: LaunchSpec, form: _Form) -> dict[str, str]:
    """What the placeholders that depend on the target alone stand for."""
    model = resolved(spec.model, spec.folder)
    image = spec.image or (form.docker.image if form.docker else "")
    if form.docker and not image:
        raise OptionError(f"targets.{spec.name}.image", f"{recipe.place} names no image of its own; name one here.")
    names = {
        "model": model,
        "tokenizer": resolved(spec.tokenizer, spec.folder) if spec.tokenizer else model,
        "python": resolved(spec.python or sys.executable, spec.folder),
        "image": image,
        "grace_s": f"{recipe.stop.grace_s:.0f}",
    }
    names["served_name"] = spec.served_name or (Path(model).name if is_local(model) else model)
    if recipe.served_name:
        dictated = filled(recipe.served_name, names)
        if spec.served_name not in (None, dictated):
            reason = f"{recipe.name} serves this model as {dictated!r} and knows no other name; take the line out."
            raise OptionError(f"targets.{spec.name}.served_name", reason)
        names["served_name"] = dictated
    return names


def resolved(path: str, folder: Path) -> str:
    """A path as a scenario writes it: ``./`` and ``../`` start from its folder, a bare name stays as it is."""
    if path.startswith("~"):
        return str(Path(os.path.expanduser(path)))
    return str((folder / path).absolute()) if path.startswith(("./", "../")) else path


def _effects(
    recipe: Recipe, spec: LaunchSpec, form: _Form, names: Mapping[str, str], notes: list[str]
) -> Iterator[tuple[Effect, Any]]:
    """What each option does, with its value. Notes of the options that are used are added to ``notes``."""
    defaults = {word: deep(value, names) for word, value in form.defaults.items()}
    words = _words(recipe, spec, form, names, notes)
    replaced = {word for name in words if name in form.options for word in form.options[name].replaces}
    for name in {*replaced, *words} & set(defaults):
        del defaults[name]
    for name, value in (defaults | words).items():
        if value is None:
            continue
        path = f"targets.{spec.name}.options.{name}"
        option = _known(path, name, form.options, recipe)
        if option.note:
            notes.append(f"{recipe.name}: {name}: {option.note}")
        if option.words:
            yield _known(path, text_of(value), option.words, recipe), value
        elif option.takes_value:
            for item in value if option.each and isinstance(value, (list, tuple)) else [value]:
                yield option, item
        elif not isinstance(value, bool):
            raise OptionError(path, f"{recipe.name} only switches this on or off: write true or false, not {value!r}.")
        elif value:
            yield option, value


def _words(recipe: Recipe, spec: LaunchSpec, form: _Form, names: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    """The scenario's options as written, then those that stand beside ``options`` there."""
    path = f"targets.{spec.name}"
    for name in ("devices", "tokenizer", "served_name"):
        if spec.options.get(name) is not None:
            raise OptionError(f"{path}.options.{name}", f"{name} stands beside `options`, not in it; move it there.")
    if spec.options.get("port") is not None and not form.docker:
        raise OptionError(f"{path}.options.port", "loadgen chooses a free port itself; take the line out.")
    words = dict(spec.options)
    for name, value in {"devices": spec.devices, "cpus": spec.cpus if form.docker else ()}.items():
        if value and name not in form.options:
            raise OptionError(f"{path}.{name}", f"{recipe.place} has no way to set {name}.")
        if value:
            words[name] = value
    if spec.tokenizer is not None and "tokenizer" in form.options:
        words["tokenizer"] = names["tokenizer"]
    elif spec.tokenizer is not None:
        notes.append(f"{recipe.name} takes no tokenizer of its own: {spec.tokenizer} is used by the client alone.")
    return words


def _known(path: str, name: str, table: Mapping[str, _Found], recipe: Recipe) -> _Found:
    if name in table:
        return table[name]
    near = _ours(name, table) or difflib.get_close_matches(name, table, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ";"
    raise OptionError(path, f"{recipe.name} has no {name!r}{guess} {recipe.place} knows {', '.join(table)}.")


def _ours(name: str, table: Mapping[str, Any]) -> list[str]:
    """Our words for what the engine calls ``name``: its flags are known from its guides, our words are not."""
    flag = name.lstrip("-").replace("-", "_")
    options = ((word, option) for word, option in table.items() if isinstance(option, Option))
    return [word for word, option in options if flag in {arg.lstrip("-").replace("-", "_") for arg in option.args}]


def _start(recipe: Recipe, form: _Form, wire: Wire) -> Effect:
    """What the recipe does before any option."""
    return Effect(env=dict(form.env), request=dict(wire.request), file=dict(recipe.files), preload=list(recipe.preload))


def _sum(effects: Iterator[tuple[Effect, Any]], start: Effect, names: Mapping[str, str]) -> Effect:
    """All effects together, every placeholder filled in. Later ones win; files are merged level by level."""
    args: list[str] = []
    run: list[str] = []
    env: dict[str, str] = {}
    request: dict[str, Any] = {}
    file: dict[str, dict[str, Any]] = {}
    preload: list[Call] = []
    for effect, value in ((start, None), *effects):
        given = {**names, "value": value}
        args += [filled(word, given) for word in effect.args]
        run += [filled(word, given) for word in effect.run]
        env |= {name: filled(text, given) for name, text in effect.env.items()}
        request = merged(request, deep(effect.request, given))
        file = merged(file, deep(effect.file, given))
        preload += [
            call.model_copy(update={"path": filled(call.path, given), "body": deep(call.body, given)})
            for call in effect.preload
        ]
    return Effect.model_construct(args=args, run=run, env=env, request=request, file=file, preload=preload)


def _container(form: _Form, spec: LaunchSpec, run_id: str, port: int) -> Container | None:
    if form.docker is None:
        return None
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"loadgen-{run_id}-{spec.name}-{port}")
    return Container(program=form.docker.run[0], name=name, label=f"loadgen.server={name}")


def _mounts(names: Mapping[str, str], effect: Effect) -> list[str]:
    """Local paths that the engine must see, read-only and under their own names.

    A path below a folder that is mounted by an option is the container's, and comes with that folder.
    """
    mounted = [word.split(":") for flag, word in itertools.pairwise(effect.run) if flag == "-v"]
    volumes = [parts[1] for parts in mounted if len(parts) > 1 and is_local(parts[0])]
    paths = [path for path in dict.fromkeys((names["model"], names["tokenizer"])) if is_local(path)]
    paths = [path for path in paths if not any(Path(path).is_relative_to(volume) for volume in volumes)]
    if effect.file:
        paths.append(names["folder"])
    return [word for path in paths for word in ("-v", f"{path}:{path}:ro")]


def trusted(spec: LaunchSpec) -> Iterator[str]:
    """A sentence for a target whose model brings code: what its makers wrote runs with the rights of whoever starts
    it. By default no engine is told to."""
    words = [*spec.args, *(name for name, value in {**spec.env, **spec.options}.items() if text_of(value) not in _OFF)]
    plain = [word.lower().replace("-", "_") for word in words]
    if any("trust_remote_code" in word and "no_trust" not in word for word in plain):
        yield f"trust_remote_code is on for {spec.name}: code that comes with {spec.model} runs on this machine."


def _secret_env(recipe: Recipe, spec: LaunchSpec) -> dict[str, str]:
    if spec.api_key_env is None:
        return {}
    if not recipe.api_key:
        path = f"targets.{spec.name}.api_key_env"
        raise OptionError(path, f"{recipe.place} knows no variable by which {recipe.name} takes a key.")
    return {recipe.api_key: spec.api_key_env}
