"""Engines as text: the table of all (`render`), and the words of one (`render_one`). In: `Found` and recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from loadgen.engines import Found
from loadgen.launch import Recipe
from loadgen.launch.recipe import Effect, Option, text_of
from loadgen.reports.text import aligned, wrapped
from loadgen.standing import BESIDE_OPTIONS


def render(found: Sequence[Found], width: int) -> str:
    """What ``loadgen engines`` prints: a table, and what is missing with the way to get it."""
    table = [["engine", "version", "image", "protocols"]]
    table += [[one.engine, _version(one), _image(one), ", ".join(one.backends)] for one in found]
    lines = aligned(table, left=4)
    if max(map(len, lines)) > width:
        lines = aligned([row[:3] for row in table], left=3)
    lines.append("")
    absent = [one for one in found if one.here is not True and not one.image_here]
    if absent:
        lines.append("Not here (-), or only a start can tell (?)")
    for one in absent:
        why = f" ({one.why})" if one.why else ""
        lines += wrapped(f"{one.engine}{why}: {one.install}", width, "  ")
    pulls = [one for one in found if one.image and one.image_here is False]
    if pulls:
        lines += ["", "Images that are fetched at the first start, or now with"]
        lines += [f"  docker pull {one.image}" for one in pulls]
    if any(one.image_here is None for one in found if one.image):
        lines += ["", *wrapped("? docker does not answer here, so nobody can say which images there are.", width)]
    lines += [
        "",
        *wrapped("`loadgen engines NAME` shows the words of one; `--python NAME=PATH` names its python.", width),
    ]
    return "\n".join(lines) + "\n"


def _version(one: Found) -> str:
    return one.version or ("here" if one.here else "?" if one.here is None else "-")


def _image(one: Found) -> str:
    if one.image is None:
        return "-"
    if not one.image:
        return "name one"
    return "?" if one.image_here is None else "here" if one.image_here else "absent"


def render_one(recipe: Recipe, one: Found, width: int) -> str:
    """What ``loadgen engines NAME`` prints: how the engine is started, every option with what it does, and the rest."""
    lines = [f"{recipe.name}: {recipe.about}", f"recipe: {recipe.place}"]
    state = f"{_version(one)} ({one.program})" if one.here else one.why or "only a start can tell"
    lines += wrapped(f"here: {state}", width)
    if not one.here and recipe.install:
        lines += wrapped(f"to get it: {recipe.install}", width)
    lines += list(_commands(recipe, width))
    lines += ["", "Options (-o word=value, or `options:` of a target)"]
    lines += _options(recipe.options, recipe.defaults, width)
    if recipe.docker:
        lines += ["", "Options in a container"]
        lines += _options(recipe.docker.options, recipe.docker.defaults, width)
    lines += ["", "Requests"]
    for backend, wire in recipe.wires.items():
        fields = f"; every request: {_json(wire.request)}" if wire.request else ""
        exact = _json(wire.exact) if wire.exact else "no fields of its own"
        lines += wrapped(f"{backend}: exactly n tokens: {exact}{fields}", width, "  ")
    lines += ["", "Ready", *wrapped(_ready(recipe), width, "  ")]
    if recipe.notes:
        lines += ["", "Notes", *(line for note in recipe.notes for line in wrapped(note, width, "  "))]
    return "\n".join(lines) + "\n"


def _commands(recipe: Recipe, width: int) -> Iterator[str]:
    docker = recipe.docker
    container = [*docker.run, *docker.command] if docker else []
    ways = {"command": recipe.command, "with --python": recipe.python_command, "with --image": container}
    for name, words in ways.items():
        if words:
            yield from wrapped(f"{name}: {' '.join(words)}", width)
    if docker and docker.image:
        yield f"image: {docker.image}"


def _options(options: Mapping[str, Option], defaults: Mapping[str, object], width: int) -> list[str]:
    lines: list[str] = []
    for name, option in options.items():
        beside = f" (--{name.replace('_', '-')})" if name in BESIDE_OPTIONS else ""
        default = f" (default: {text_of(defaults[name])})" if name in defaults else ""
        lines += wrapped(f"{name}{beside}: {_does(option)}{default}", width, "  ")
        lines += wrapped(option.note, width, "      ") if option.note else []
    return lines


def _does(option: Option) -> str:
    if option.words:
        words = (f"{word} {_effect(effect)}".strip() for word, effect in option.words.items())
        return " | ".join(words)
    return _effect(option) if option.takes_value else f"true {_effect(option)}"


def _effect(effect: Effect) -> str:
    parts = [" ".join([*effect.run, *effect.args])]
    parts += [f"{name}={value}" for name, value in effect.env.items()]
    parts += [f"in requests {_json(effect.request)}"] if effect.request else []
    parts += [f"in {name} {_json(value)}" for name, value in effect.file.items()]
    parts += [f"{call.method} {call.path} after the start" for call in effect.preload]
    return ", ".join(part for part in parts if part)


def _ready(recipe: Recipe) -> str:
    ready = recipe.ready
    listed = f", {ready.models} lists {ready.name}" if ready.models else ""
    probe = ", one token comes back" if ready.probe else ""
    metrics = f"; metrics at {recipe.metrics}" if recipe.metrics else ""
    return f"{ready.path} answers 200{listed}{probe}, within {ready.timeout_s:.0f} s{metrics}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
