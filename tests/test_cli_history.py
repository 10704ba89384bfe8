"""history, baseline, blame and reindex, as a user runs them."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_runner import Done, command, environment
from made_nights import AT, GPU, VECTOR, described, launched, made_scenario, night, nights, throughput
from made_runs import MACHINE, made_run

from loadgen.host import nvml_gpus
from loadgen.nights.blame import changes
from loadgen.nights.events import Accepted, Night, append, read_events
from loadgen.nights.history import read_history
from loadgen.scenario import Scenario


@pytest.fixture(scope="module")
def fourteen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scenario]:
    """A store with the fourteen nights of the test vector."""
    folder = tmp_path_factory.mktemp("fourteen")
    (folder / "store").mkdir(mode=0o700)
    scenario = made_scenario(folder)
    nights(folder / "store", scenario, VECTOR)
    return folder / "store", scenario


@pytest.fixture
def store(fourteen: tuple[Path, Scenario], tmp_path: Path) -> tuple[Path, Scenario]:
    """A copy of it, to be written to."""
    shutil.copytree(fourteen[0], tmp_path / "store")
    return tmp_path / "store", fourteen[1]


def test_blame_names_what_changed_and_not_what_did_not() -> None:
    before = {
        "engine_version": "0.9",
        "kv_tokens": "1000",
        "target": "a",
        "scenario.target.image": "x:1",
        "image": "x:1",
    }
    after = {**before, "engine_version": "0.10", "kv_tokens": "1010", "target": "b"}
    after |= {"scenario.target.image": "x:2", "image": "x:2", "gpu_driver": "580"}
    found = [str(change) for change in changes(before, after)]
    assert found == ["engine_version 0.9 -> 0.10", "image x:1 -> x:2", "gpu_driver (not known) -> 580"]


def test_how_long_a_start_took_is_no_change() -> None:
    before = {"found.weights_load_s": "4.9", "found.dtype": "bfloat16"}
    assert list(map(str, changes(before, {"found.weights_load_s": "5.6", "found.dtype": "float16"}))) == [
        "the engine's dtype bfloat16 -> float16"
    ]


def test_what_an_option_says_and_the_engine_confirms_is_one_change() -> None:
    before = {"dtype": "bfloat16", "found.dtype": "bfloat16", "found.kv_dtype": "fp16"}
    after = {"dtype": "float16", "found.dtype": "float16", "found.kv_dtype": "fp8"}
    assert [str(change) for change in changes(before, after)] == [
        "dtype bfloat16 -> float16",
        "the engine's kv_dtype fp16 -> fp8",
    ]


def test_a_gpu_that_is_held_to_less_is_named(tmp_path: Path) -> None:
    root, scenario = tmp_path / "store", launched(tmp_path)
    root.mkdir()
    for watts in (700.0, 500.0):
        limits = {"power_limit_w": watts, "sm_clock_most_mhz": 1980}
        night(root, scenario, 100, described=described(machine={**MACHINE, "gpus": [{**GPU, **limits}]}))
    history = read_history(root)
    assert [str(change) for change in history.changes(throughput(history))] == ["gpu0.power_limit_w 700.0 -> 500.0"]


def test_the_limits_of_a_gpu_are_asked_for_and_one_that_is_not_told_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NotSupported(Exception):
        pass

    def refuse(handle: int, kind: int) -> int:
        raise NotSupported

    nvml = SimpleNamespace(
        NVMLError=NotSupported,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"570",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=150 * 10**9),
        nvmlDeviceGetUUID=lambda handle: "GPU-a",
        nvmlDeviceGetName=lambda handle: "NVIDIA H200",
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetApplicationsClock=refuse,
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 700_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (found,) = nvml_gpus()
    assert found["driver"] == "570"
    assert {name: found[name] for name in found if name.endswith(("mhz", "_w"))} == {
        "sm_clock_most_mhz": 1980,
        "power_limit_w": 700.0,
    }


def test_a_series_that_began_tonight_is_held_against_the_one_that_had_its_name(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    night(root, launched(tmp_path), 100, described=described())
    night(
        root, launched(tmp_path, load_words="concurrency: 4, max_rps: 3"), 50, described=described({"version": "0.10"})
    )
    history = read_history(root)
    found = [str(change) for change in history.changes(throughput(history))]
    assert "engine_version 0.9 -> 0.10" in found
    assert "scenario.load.max_rps (not known) -> 3.0" in found


def loadgen(root: Path, *words: str, columns: str = "80") -> Done:
    done = subprocess.run(
        command(*words), env={**environment(root), "COLUMNS": columns}, capture_output=True, text=True, timeout=60
    )
    return Done(done.returncode, done.stdout, done.stderr, root)


def test_history_shows_every_primary_series_within_the_width(store: tuple[Path, Scenario]) -> None:
    night(*store, 94, 94)
    night(*store, 94)
    done = loadgen(store[0], "history")
    assert done.code == 0
    row = next(line for line in done.out.splitlines() if line.startswith("a all output_tok_s"))
    assert row.split()[3:] == ["REGRESSION", "94", "98.35..101.7", "-6.0", "%", "16", "2"]
    assert max(map(len, done.out.splitlines())) <= 80
    wide = loadgen(store[0], "history", columns="200").out
    assert "last good" in wide
    assert "p50 ttft_s" in wide


def test_history_of_a_series_shows_its_nights_its_band_and_where_an_epoch_begins(tmp_path: Path) -> None:
    root, scenario = tmp_path / "store", launched(tmp_path)
    root.mkdir()
    for driver in ("570", "570", "580"):
        night(root, scenario, 100, described=described(driver=driver))
    lines = loadgen(root, "history", "--series", "a output_tok_s").out.splitlines()
    rows = [line for line in lines if line.startswith(("2026-11-20", "--"))]
    assert [row.startswith("2026") for row in rows] == [False, True, True, False, True]
    assert rows[3] == "-- new epoch: gpu_driver 570 -> 580"
    failed = loadgen(root, "history", "--series", "nothing")
    assert failed.code == 2
    assert "no series 'nothing'" in failed.err


def test_history_exits_with_5_when_the_last_good_night_is_too_old_or_there_is_none(
    store: tuple[Path, Scenario], tmp_path: Path
) -> None:
    assert loadgen(store[0], "history", "--stale", "9999w").code == 0
    late = loadgen(store[0], "history", "--stale", "1s")
    assert late.code == 5
    assert "its last good night was" in late.err
    (tmp_path / "empty").mkdir()
    empty = loadgen(tmp_path / "empty", "history", "--stale", "36h")
    assert empty.code == 5
    assert "there is no night in" in empty.err
    assert loadgen(store[0], "history", "--stale", "soon").code == 2


def test_a_night_that_was_measured_years_ahead_of_the_clock_does_not_keep_its_series_from_being_stale(
    store: tuple[Path, Scenario],
) -> None:
    history = read_history(store[0])
    keys = history.live()
    said = history.stale(0.0, 1e12, keys)
    assert said
    assert all("h from now (2026" in line and "the clock was wrong then, or is now" in line for line in said)


def test_a_series_that_never_had_a_good_night_is_stale_from_the_first(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run = made_run(root, made_scenario(tmp_path), {"a": [100]}, state="invalid")
    append(root, [Night(at=AT, run=run.id, scenario="made", verdicts=())])
    history = read_history(root)
    late = history.stale(0.0, 1e9, history.live())
    assert late == [
        "made a all output_tok_s: it never had a good night.",
        "made a all p50 ttft_s: it never had a good night.",
    ]


def test_history_as_csv_has_a_row_a_night_and_series(store: tuple[Path, Scenario]) -> None:
    rows = list(csv.DictReader(io.StringIO(loadgen(store[0], "history", "--csv").out)))
    assert len(rows) == 28
    assert [float(row["value"]) for row in rows if row["measure"] == "output_tok_s"] == pytest.approx(VECTOR)
    assert {row["state"] for row in rows} == {"ok", "learning"}


def test_a_baseline_is_shown_accepted_and_pinned(store: tuple[Path, Scenario]) -> None:
    run = night(*store, 94, 94)[0]
    shown = loadgen(store[0], "baseline", "show", "output_tok_s").out
    assert "14 nights: 100, expected 98.35..101.7" in shown
    assert "alert open since" in shown
    accepted = loadgen(store[0], "baseline", "accept", "output_tok_s", "--note", "worth it")
    assert f"normal is what was measured from {run.id} on" in accepted.out
    event = read_events(store[0])[-1]
    assert (type(event), event.run, event.note) == (Accepted, run.id, "worth it")  # type: ignore[union-attr]
    assert "accepted: worth it" in loadgen(store[0], "baseline", "show", "output_tok_s").out
    few = loadgen(store[0], "baseline", "pin", "output_tok_s")
    assert few.code == 2
    assert "1 good nights from there on, and 8 are needed" in few.err
    assert "against 14 nights" in loadgen(store[0], "baseline", "pin", "p50 ttft_s").out


def test_blame_prints_the_last_good_night_and_what_changed_since(tmp_path: Path) -> None:
    root, scenario = tmp_path / "store", launched(tmp_path)
    root.mkdir()
    for _ in range(9):
        night(root, scenario, 100, described=described())
    night(root, scenario, 90, 90, described=described({"version": "0.10\x1b[31m"}))
    done = loadgen(root, "blame", "output_tok_s")
    assert done.out.startswith("REGRESSION made a all output_tok_s 90 vs 100 (-10.0 %)")
    assert "engine_version 0.9 -> 0.10" in done.out
    assert "\x1b" not in done.out
    assert "kv_tokens" not in done.out


def test_reindex_counts_what_it_found(store: tuple[Path, Scenario]) -> None:
    done = loadgen(store[0], "reindex")
    assert (done.code, done.out) == (0, "14 runs, 14 of them nights.\n")
