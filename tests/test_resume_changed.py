"""A run goes on with what it began with: repeats of two workloads, or of two models, are no repeats of one cell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Done, loadgen, write_scenario
from fakes import FakeServer
from made_runs import made_run
from scenario_text import scenario

from loadgen.errors import UsageError
from loadgen.needless import same_plan
from loadgen.plan import make_plan
from loadgen.scenario import expand

TEXT = """targets: {{a: {{endpoint: '{url}', model: m}}}}
workload: {{prompts: natural, output: {{exact: 4}}}}
load: {{warmup_s: 0, window_s: 0.2, workers: 1}}
matrix: {{load.concurrency: [1]}}
repeats: 2
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a run of two repeats, of which the second is to be done again; and its scenario."""
    folder = tmp_path_factory.mktemp("begun")
    with FakeServer(ttft_ms=1, gap_ms=1) as server:
        text = TEXT.format(url=server.url)
        done = loadgen(folder, "run", str(write_scenario(folder, text)))
        shutil.rmtree(next(done.run.glob("cells/*/a/rep-002")))
        yield folder, text


def resumed(begun: tuple[Path, str], old: str, new: str, *words: str) -> Done:
    folder, text = begun
    assert old in text
    scenario = write_scenario(folder, text.replace(old, new))
    return loadgen(folder, *(words or ("run",)), str(scenario), "--resume", "last")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model: m", "model: n", '(targets.a.model was "m" and is "n")'),
        ("exact: 4", "max: 4", "(workload.output.exact was 4 and is null, and 1 more)"),
        ("workers: 1", "workers: 2", "(load.workers was 1 and is 2)"),
    ],
)
def test_a_run_is_not_resumed_with_something_else(begun: tuple[Path, str], old: str, new: str, said: str) -> None:
    for words in (("run",), ("plan",)):
        done = resumed(begun, old, new, *words)
        assert done.code == 2
        assert f"began with another scenario {said}: resume it with" in done.err
    assert not list(done.run.glob("cells/*/a/rep-002"))


def test_what_nothing_measured_depends_on_may_be_another_when_a_run_goes_on(begun: tuple[Path, str]) -> None:
    done = resumed(begun, "repeats: 2", "repeats: 2\ndescription: what we wanted to know")
    assert done.code in (0, 5)
    assert len(done.results()) == 2


def test_a_run_goes_on_on_another_machine_and_says_so(begun: tuple[Path, str]) -> None:
    folder, _ = begun
    run = next(folder.rglob("run.json")).parent
    shutil.rmtree(next(run.glob("cells/*/a/rep-002")), ignore_errors=True)
    resumed(begun, "model: m", "model: m")
    described = json.loads((run / "run.json").read_text())
    described["machine"] |= {"cpu": "Abacus", "cores": 3, "gpus": []}
    (run / "run.json").write_text(json.dumps(described))

    def said() -> list[str]:
        assert resumed(begun, "model: m", "model: m").code in (0, 5)
        report = json.loads((run / "report.json").read_text())
        return [one["text"] for one in report["warnings"] if one["code"] == "elsewhere"]

    assert said() == [], "nothing was left to be measured there"
    shutil.rmtree(next(run.glob("cells/*/a/rep-002")))
    (text,) = said()
    assert text.startswith("The run began on Abacus, 3 cores, no GPU and went on on ")


def test_a_gpu_may_have_another_number_when_a_run_goes_on(tmp_path: Path) -> None:
    text = "targets: {{a: {{engine: vllm, model: /m, devices: [{}], options: {{max_model_len: {}}}}}}}\n"
    text += "workload: {{prompts: natural, output: {{max: 4}}}}\nload: {{concurrency: 1, window_s: 1}}\n"
    text = "schema: loadgen/v1\n" + text
    began, moved, changed = (scenario(tmp_path, text.format(*words)) for words in ((2, 64), (0, 64), (2, 65)))
    run = made_run(tmp_path / "store", began, {"a": (1.0,)})
    same_plan(run, make_plan(moved, expand(moved)), moved)
    with pytest.raises(UsageError, match="max_model_len was 64 and is 65"):
        same_plan(run, make_plan(changed, expand(changed)), changed)
