"""The page's template is compiled once, and what is kept of it can be broken, missing or forbidden without harm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from loadgen.reports.html.compiled import Compiled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "maker.py").write_text("how it is compiled")
    (tmp_path / "page.j2").write_text("<p>{{ name }}</p>")
    return tmp_path


def filled(folder: Path) -> tuple[str, int]:
    """The page, and how often something was compiled for it."""

    class Counting(Environment):
        compiled = 0

        def compile(self, *args: object, **words: object) -> object:
            Counting.compiled += 1
            return super().compile(*args, **words)  # type: ignore[call-overload]

    environment = Counting(
        loader=FileSystemLoader(folder), bytecode_cache=Compiled(folder, folder / "maker.py"), autoescape=True
    )
    return environment.get_template("page.j2").render(name="<me>"), Counting.compiled


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "__pycache__").glob("template-*"))


def test_the_second_page_needs_no_compiler(folder: Path) -> None:
    assert filled(folder) == ("<p>&lt;me&gt;</p>", 1)
    assert filled(folder) == ("<p>&lt;me&gt;</p>", 0)


def test_a_changed_template_or_another_way_to_compile_it_is_compiled_anew(folder: Path) -> None:
    filled(folder)
    (folder / "page.j2").write_text("<b>{{ name }}</b>")
    assert filled(folder) == ("<b>&lt;me&gt;</b>", 1)
    (folder / "maker.py").write_text("how it is compiled now")
    assert filled(folder) == ("<b>&lt;me&gt;</b>", 1)


@pytest.mark.parametrize("length", [0, 3, 40, 200, -1])
def test_what_a_power_cut_left_is_compiled_anew(folder: Path, length: int) -> None:
    filled(folder)
    (file,) = kept(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:length])
    assert filled(folder) == ("<p>&lt;me&gt;</p>", 1)
    assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_the_page_is_made_all_the_same(folder: Path) -> None:
    (folder / "__pycache__").write_text("a file where the folder should be")
    assert filled(folder) == ("<p>&lt;me&gt;</p>", 1)
    assert filled(folder) == ("<p>&lt;me&gt;</p>", 1)


def test_a_full_disk_keeps_nothing_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert filled(folder) == ("<p>&lt;me&gt;</p>", 1)
    assert list((folder / "__pycache__").iterdir()) == []


def test_python_without_bytecode_keeps_none_of_templates_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    filled(folder)
    assert not (folder / "__pycache__").exists()
