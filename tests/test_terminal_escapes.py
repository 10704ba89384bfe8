"""What engines, models and hosts say of themselves reaches reports; a terminal must not obey it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from made_runs import A, B, made_run, scenario_of

from loadgen import cli
from loadgen.nights.events import Night, append
from loadgen.store import Run

HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J\x08\x7f</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of which all that comes from outside holds terminal escapes."""
    folder = tmp_path_factory.mktemp("hostile")
    scenario = scenario_of(folder, ["a", "b"], "repeats: 6\ncomparison: {baseline: a}\n")
    server = {
        "engine": f"vllm{HOSTILE}", "target": "a", "model": f"m{HOSTILE}", "notes": [f"note{HOSTILE}"],
        "facts": {"version": f"1{HOSTILE}"}, "startup_s": 1.0,
    }  # fmt: skip
    failures = [f"it failed {HOSTILE}"]
    run = made_run(folder / "store", scenario, {"a": A, "b": B}, {"failures": failures, "servers": {"a-1": server}})
    described = run.read("run.json")
    described["scenario"]["targets"]["a"] |= {"model": f"m{HOSTILE}", "served_name": f"s{HOSTILE}"}
    described["machine"] |= {"cpu": f"c{HOSTILE}", "host": f"h{HOSTILE}"}
    described["versions"] |= {"loadgen": f"v{HOSTILE}"}
    run.write("run.json", described)
    for path in run.folder.rglob("summary.json"):
        result = json.loads(path.read_text())
        result["summary"]["doubts"] = [{"code": "odd", "text": f"an odd thing {HOSTILE}"}]
        path.write_text(json.dumps(result))
    append(folder / "store", [Night(at="2026-11-20T02:00:00Z", run=run.id, scenario="made", verdicts=())])
    return run


@pytest.mark.parametrize(
    "words",
    [
        *(("report", "last", "--format", form) for form in ("text", "markdown", "csv", "json", "junit")),
        ("report", "last", "last"),
        ("compare", "last"),
        ("compare", "last", "--json"),
        ("history",),
        ("history", "--series", "output_tok_s"),
        ("history", "--csv"),
        ("blame", "a", "output_tok_s"),
        ("baseline", "show", "a", "output_tok_s"),
    ],
    ids=" ".join,
)
def test_no_command_prints_a_control_character(
    run: Run, words: Sequence[str], capfd: pytest.CaptureFixture[str]
) -> None:
    out = printed(run, words, capfd)
    assert out
    assert {c for c in out if not c.isprintable() and c not in "\n\r"} == set()


def test_json_says_what_was_said_all_the_same(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    out = printed(run, ("report", "last", "--format", "json"), capfd)
    assert f"it failed {HOSTILE}" in json.loads(out)["failures"]


def printed(run: Run, words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What a command shows, on both streams."""
    with pytest.raises(SystemExit):
        cli.app([*words, "--store", str(run.folder.parents[2])])
    out, err = capfd.readouterr()
    return out + err
