"""Files in the folder that a user stands in are theirs: no program of ours takes them for modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.engines import survey
from loadgen.fleet.process import Process
from loadgen.launch import load_recipe
from loadgen.selftest import _null_server


@pytest.fixture
def _among_namesakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("typing.py", "selectors.py", "msgspec.py", "loadgen/__init__.py", "llama_cpp/__init__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('this is not the module that you look for')\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_among_namesakes")
def test_a_worker_starts_among_files_that_are_named_like_modules() -> None:
    worker = Process(0)
    worker.end()
    assert worker.epitaph().endswith("ended with exit code 0")


@pytest.mark.usefixtures("_among_namesakes")
def test_the_null_server_starts_among_files_that_are_named_like_modules() -> None:
    with _null_server() as (_, truth):
        assert truth() == ""


@pytest.mark.usefixtures("_among_namesakes")
def test_a_folder_that_is_named_like_an_engine_is_no_engine() -> None:
    (found,) = survey([load_recipe("llamacpp-python", Path())], {})
    assert (found.here, found.version) == (False, None)
    assert "has no module llama_cpp" in str(found.why)
