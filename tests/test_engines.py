"""The survey of engines: what is here by the same way by which it would be started, and how to get the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_runner import loadgen

from loadgen.engines import Found, shipped, survey, version_in
from loadgen.launch import load_recipe, recipes
from loadgen.reports.engines import render

READY = "ready: {probe: false}\n"


def found(folder: Path, text: str, python: str | None = None) -> Found:
    (folder / "mine.yaml").write_text("install: install it from there.\n" + text + READY)
    recipe = load_recipe("./mine.yaml", folder)
    (one,) = survey([recipe], {"mine": python} if python else {})
    return one


def program(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("vllm 0.26.1rc1.dev3+gabc", "0.26.1rc1.dev3+gabc"),
        ("version: 4589 (5f0db95)", "4589"),
        ("ollama version is 0.5.7", "0.5.7"),
        ("b7214", "b7214"),
        ("unknown", None),
        ("", None),
    ],
)
def test_the_version_is_found_in_what_an_engine_prints(line: str, version: str | None) -> None:
    assert version_in(line) == version


def test_a_program_that_is_here_says_its_version(tmp_path: Path) -> None:
    path = program(tmp_path, "engine", "echo engine 1.2.3")
    one = found(tmp_path, f"command: ['{path}', '{{model}}']\nversion: ['{path}', --version]\n")
    assert (one.here, one.version, one.program, one.why) == (True, "1.2.3", path, None)


def test_a_program_that_is_not_here_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    one = found(tmp_path, "command: [no-such-engine, '{model}']\n")
    assert (one.here, one.version) == (False, None)
    assert one.why == "there is no program 'no-such-engine' in the PATH"
    assert "mine (there is no program 'no-such-engine' in the PATH): install it from there." in render([one], 120)


def test_a_program_whose_version_fails_is_not_here(tmp_path: Path) -> None:
    path = program(tmp_path, "engine", "echo no libcuda >&2; exit 3")
    one = found(tmp_path, f"command: ['{path}']\nversion: ['{path}', --version]\n")
    assert (one.here, one.why) == (False, "no libcuda")


def test_a_module_is_looked_for_in_the_named_python_without_being_imported(tmp_path: Path) -> None:
    text = "command: [engine]\npython_command: ['{python}', -m, httpx.main, '{model}']\n"
    one = found(tmp_path, text, sys.executable)
    assert one.here is True
    assert one.version == __import__("httpx").__version__
    assert found(tmp_path, text).why == "there is no program 'engine' in the PATH"  # no python named: as it would start


def test_a_module_that_the_named_python_does_not_have_is_missed(tmp_path: Path) -> None:
    one = found(tmp_path, "command: ['{python}', -m, no_such_engine.server]\n", sys.executable)
    assert (one.here, one.why) == (False, f"{sys.executable} has no module no_such_engine")


def test_of_a_program_of_ours_that_says_no_version_only_a_start_can_tell(tmp_path: Path) -> None:
    one = found(tmp_path, "command: ['{python}', '{launchers}/hf_server.py']\n")
    assert (one.here, one.version) == (None, None)


@pytest.mark.parametrize(
    ("script", "here", "shown"),
    [
        ("exit 0", True, "here"),
        ('[ "$1" = version ]', False, "absent"),
        ("exit 1", None, "?"),
    ],
)
def test_an_image_is_here_absent_or_not_to_be_asked_for(
    tmp_path: Path, script: str, here: bool | None, shown: str
) -> None:
    docker = program(tmp_path, "docker", script)
    one = found(tmp_path, f"docker: {{image: 'some/image:1', run: ['{docker}', run, '{{image}}']}}\n")
    assert one.image == "some/image:1"
    assert one.image_here is here
    text = render([one], 120)
    assert text.splitlines()[2].split()[:3] == ["mine", "-", shown]
    assert ("docker pull some/image:1" in text) == (here is False)


def test_every_shipped_recipe_has_a_row_and_narrow_terminals_a_narrower_table(tmp_path: Path) -> None:
    rows = [
        Found(
            engine=recipe.name, about="", backends=tuple(recipe.wires), program="", here=False, version=None,
            why=None, install=recipe.install, image=None, image_here=None,
        )
        for recipe in shipped()
    ]  # fmt: skip
    assert [row.engine for row in rows] == recipes()
    for width in (60, 80, 200):
        lines = render(rows, width).splitlines()
        assert ("protocols" in lines[0]) == (width == 200)
        assert all(len(line) <= width for line in lines)


def test_an_engine_without_a_way_to_get_it_would_leave_its_user_alone() -> None:
    assert [recipe.name for recipe in shipped() if not recipe.install or not recipe.about] == []


def test_one_engine_is_shown_with_its_words_flags_and_notes(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "about: an engine\ncommand: [no-such-engine, '{model}']\noptions:\n"
        "  tensor_parallel: [--tp, '{value}']\n  eager: [--eager]\n  quantization: {awq: [-q, awq], fp8: [-q, fp8]}\n"
        "  memory: {args: [--memory, '{value}'], note: a share of what is free}\n  cache: {env: {CACHE: '{value}'}}\n"
        "  served_name: [--name, '{value}']\n"
        "defaults: {tensor_parallel: 1}\nexact: {min_tokens: '{n}'}\nnotes: [It is slow.]\nready: {path: /up}\n"
    )
    done = loadgen(tmp_path, "engines", "./mine.yaml")
    assert done.code == 0, done.err
    for line in (
        "mine: an engine",
        "here: there is no program 'no-such-engine' in the PATH",
        "  tensor_parallel: --tp {value} (default: 1)",
        "  eager: true --eager",
        "  quantization: awq -q awq | fp8 -q fp8",
        "      a share of what is free",
        "  cache: CACHE={value}",
        "  served_name (--served-name): --name {value}",
        '  openai_chat: exactly n tokens: {"min_tokens": "{n}"}',
        "  /up answers 200, one token comes back, within 600 s",
        "  It is slow.",
    ):
        assert line in done.out.splitlines()


def test_programs_read_one_engine_as_json(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("command: [no-such-engine]\noptions: {a: [--a, '{value}']}\n" + READY)
    value = json.loads(loadgen(tmp_path, "engines", "./mine.yaml", "--json").out)
    assert (value["engine"], value["here"]) == ("mine", False)
    assert value["recipe"]["options"]["a"]["args"] == ["--a", "{value}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vlm"], "did you mean 'vllm'"),
        (["--python", "vllm"], "write --python NAME=PATH"),
        (["--python", "vlm=/x"], "there is no engine 'vlm' here; there are "),
    ],
)
def test_an_engine_or_python_that_cannot_be_read_is_a_sentence(tmp_path: Path, words: list[str], said: str) -> None:
    done = loadgen(tmp_path, "engines", *words)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
