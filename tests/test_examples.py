"""Every example that a help text ends with is run as it stands, by a shell, where what it names exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeServer
from foreign_results import unpack
from made_nights import VECTOR, made_scenario, nights
from test_reports import made
from typer.main import get_group

from loadgen.cli import app

ROOT = Path(__file__).parents[1]
SERVED = (
    "schema: loadgen/v1\n"
    "targets: {{dense: {{endpoint: '{url}', model: d}}, moe: {{endpoint: '{url}', model: m}}}}\n"
    "workload: {{prompts: natural, output: {{exact: 4}}}}\nload: {{warmup_s: 0, window_s: 0.2}}\n"
    "matrix: {{concurrency: [1]}}\nrepeats: 2\ncomparison: {{baseline: dense, scope: instance}}\n"
)
LEFT_OUT = {
    "launch": "stands until it is stopped, and needs an engine; tests/test_standing.py and the engines' tests run it",
    "merge": "needs the runs of shards; tests/test_shards.py has them",
    "rejudge": "needs a run with its request lines; tests/test_rejudging.py has one",
    "selftest": "loads this machine for minutes; tests/test_selftest.py runs it with --quick",
}


def examples(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """The words of each command, and its example."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from examples(command, (*path, name))
        else:
            yield " ".join((*path, name)), (command.epilog or "").removeprefix("Example: ")


EXAMPLES = dict(examples(get_group(app)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the examples are run: scenarios, a store with two runs and nights, results of another tool, a server."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "scenarios", folder / "scenarios")
    older = Path(made(folder).path)
    older.rename(older.with_name("20261101T041656Z-made_up-3f9a01"))
    made(folder)
    found = unpack(tmp_path_factory.mktemp("imports"))
    for number, name in enumerate(("vllm_detailed.json", "vllm_plain.json"), 1):
        shutil.copy(found / name, folder / f"vllm-run-{number}.json")
    scenario = made_scenario(folder / "nights", targets=("moe",))
    first, *_ = nights(folder / "night-store", scenario, [*VECTOR[:11], 94])
    (folder / "first-night").write_text(first.id)
    (folder / "served/scenarios").mkdir(parents=True)
    with FakeServer(ttft_ms=2, gap_ms=1) as server:
        (folder / "served/scenarios/moe_vs_dense.yaml").write_text(SERVED.format(url=server.url))
        yield folder


def test_no_command_is_without_an_example() -> None:
    assert len(EXAMPLES) > 15
    assert [name for name, line in EXAMPLES.items() if not line.startswith(f"loadgen {name}")] == []
    assert set(LEFT_OUT) <= set(EXAMPLES)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in LEFT_OUT])
def test_an_example_works_as_it_stands(folder: Path, name: str, tmp_path: Path) -> None:
    place = folder / "served" if name in ("run", "calibrate", "nightly") else folder
    store = place / "store"
    if name.startswith(("history", "baseline", "blame", "site", "reindex")):
        store = shutil.copytree(folder / "night-store", tmp_path / "store")  # one may change what another is about
    line = EXAMPLES[name]
    for made_up, here in standing_for(store, (folder / "first-night").read_text()).items():
        line = re.sub(made_up, here, line)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LOADGEN_HOME": str(store)}
    done = subprocess.run(["bash", "-c", line], cwd=place, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 3, 5), f"{line}\n{done.stdout}{done.stderr}"  # 3, 5: what a number is worth, said
    assert "Traceback" not in done.stderr
    assert done.stdout or done.stderr or " > " in line


def standing_for(store: Path, night: str) -> dict[str, str]:
    """Places and names that an example makes up, and what they are here."""
    return {"/srv/loadgen": str(store), "/var/www/html/nights": "site", "20261101T041656Z?": night}
