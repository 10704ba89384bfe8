"""Bad input through the command line: a sentence on standard error, the contract's exit code, no traceback."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from cli_runner import loadgen
from scenario_text import ENDPOINT, REFUSED, SMALLEST, put


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *REFUSED,
        (ENDPOINT.replace("model: a", "model: a, backend: openai_chta"), "did you mean 'openai_chat'"),
        (ENDPOINT.replace("window_s", "windows_s"), "did you mean 'window_s'"),
        (ENDPOINT.replace("natural", "jsonl, path: empty.jsonl"), "empty.jsonl"),
        (ENDPOINT + "matrix: {concurrency: [1], exclude: [{concurrency: 1}]}\n", "no cell"),
        (ENDPOINT + f"matrix: {{concurrency: {list(range(1, 1102))}}}\n", "1,000"),
        (SMALLEST.replace("model: a", "model: {config: nowhere.json}"), "nowhere.json"),
        (SMALLEST.replace("model: a", "model: x/y, options: {tensr_parallel: 2}"), "did you mean 'tensor_parallel'"),
    ],
)
def test_what_a_scenario_gets_wrong_is_a_sentence_before_anything_starts(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    done = loadgen(tmp_path, "run", str(put(tmp_path, text)))
    assert done.code == 2, done.err + done.out
    assert "Traceback" not in done.err
    assert done.err.startswith("loadgen: ")
    assert words in done.err
    assert not list(done.store.glob("runs/*/*"))


def test_a_scenario_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "run", "nowhere.yaml")
    assert done.code == 2
    assert "nowhere.yaml" in done.err
    assert "Traceback" not in done.err


def test_an_unknown_flag_is_exit_2(tmp_path: Path) -> None:
    assert loadgen(tmp_path, "run", "x.yaml", "--nonsense").code == 2


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "report", "last")
    assert done.code == 2
    assert "no run 'last'" in done.err


def test_a_format_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "store/runs/d/r").mkdir(parents=True)
    done = loadgen(tmp_path, "report", "last", "--format", "pdf")
    assert done.code == 2


def test_the_schema_is_printed(tmp_path: Path) -> None:
    schema = json.loads(loadgen(tmp_path, "schema").out)
    committed = Path(__file__).parents[1] / "schemas" / "scenario-v1.json"
    assert schema == json.loads(committed.read_text())


def test_the_version_is_printed(tmp_path: Path) -> None:
    from loadgen import __version__

    assert loadgen(tmp_path, "--version").out == f"loadgen {__version__}\n"


@pytest.mark.parametrize("words", [[], ["run"], ["plan"], ["report"], ["schema"], ["launch"], ["engines"], ["doctor"]])
def test_every_help_ends_with_an_example_or_the_commands(tmp_path: Path, words: list[str]) -> None:
    done = loadgen(tmp_path, *words, "--help")
    assert done.code == 0
    assert "Example: loadgen" in done.out if words else "run" in done.out


def test_every_command_has_an_example_that_it_understands_and_that_fits_a_terminal() -> None:
    from typer.main import get_group

    from loadgen.cli import app

    group = get_group(app)
    for name, command in group.commands.items():
        example = (command.epilog or "").removeprefix("Example: ")
        words = shlex.split(example.partition(" > ")[0])
        assert words[:2] == ["loadgen", name]
        command.make_context(name, words[2:])
        assert len(f"  Example: {example}") <= 80


def test_the_list_of_commands_says_of_each_in_a_whole_line_what_it_does(tmp_path: Path) -> None:
    listed = loadgen(tmp_path, "--help").out.partition("Commands:\n")[2].splitlines()
    assert len(listed) >= 8
    assert [line for line in listed if line.endswith("...")] == []


def test_keep_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    import loadgen.run
    from loadgen.cli import app
    from loadgen.errors import LaunchError

    asked = []

    def execute(request: loadgen.run.Request, watcher: object) -> None:
        asked.append(request.keep)
        raise LaunchError("enough")

    monkeypatch.setattr(loadgen.run, "execute", execute)
    scenario = str(put(tmp_path, ENDPOINT))
    for words in ([], ["--keep"]):
        CliRunner().invoke(app, ["run", scenario, "--store", str(tmp_path / "store"), *words])
    assert asked == [False, True]
