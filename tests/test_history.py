"""What a store knows of its nights: series and epochs, events, the index and its rebuild, the commands."""

from __future__ import annotations

import csv
import io
import math
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_runner import Done, command, environment
from made_nights import AT, VECTOR, made_scenario, night, nights
from made_runs import MACHINE, made_run

from loadgen.assemble import assemble
from loadgen.baseline import failing
from loadgen.blame import changes
from loadgen.errors import StoreError, UsageError
from loadgen.events import Accepted, Night, Pinned, Raised, Recovered, append, read_events
from loadgen.history import History, noise_floors, read_history
from loadgen.host import nvml_gpus
from loadgen.index import NAME, contents, look, reindex
from loadgen.noise import Floor, FloorCell, load_key, machine_key, write_floor
from loadgen.scenario import Scenario, expand
from loadgen.series import Point, points_of, policy_of, primaries
from loadgen.verdicts import State

GPU = {"name": "H200", "uuid": "GPU-1", "memory_gb": 150.0, "driver": "570"}
LAUNCHED = "{engine: vllm, model: m%s}"


def launched(folder: Path, words: str = "", more: str = "repeats: 1\n", load: str = "concurrency: 4") -> Scenario:
    """One target, which is launched; ``words`` are further ones of it."""
    from loadgen.scenario import load as load_scenario

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "made.yaml"
    path.write_text(
        f"schema: loadgen/v1\nname: made\ntargets: {{a: {LAUNCHED % words}}}\n"
        f"workload: {{prompts: natural, output: {{exact: 8}}}}\nload: {{warmup_s: 1, window_s: 30, {load}}}\n{more}"
    )
    return load_scenario(path).scenario


def described(facts: Mapping[str, Any] | None = None, driver: str = "570", **more: Any) -> dict[str, Any]:
    """Fields of run.json: a machine with one GPU, and what the server of target "a" says of itself."""
    server = {"target": "a", "engine": "vllm", "facts": {"version": "0.9", "revision": "r1", **(facts or {})}}
    gpus = [{**GPU, "driver": driver}]
    return {"machine": {**MACHINE, "gpus": gpus}, "servers": {"a-1": server}} | more


def points(
    folder: Path, scenario: Scenario, fields: dict[str, Any] | None = None, values: Any = (100.0,)
) -> list[Point]:
    run = made_run(folder / "store", scenario, dict.fromkeys(scenario.targets, values), fields or described())
    return points_of(assemble(run))


def key(folder: Path, scenario: Scenario, fields: dict[str, Any] | None = None) -> str:
    return points(folder, scenario, fields)[0].series.key


# Series ---------------------------------------------------------------------------------------------------------------


def test_what_is_watched_is_no_part_of_the_key_and_what_makes_nights_comparable_is(tmp_path: Path) -> None:
    first = key(tmp_path, launched(tmp_path))
    same = [
        key(tmp_path, launched(tmp_path), described({"version": "0.10"})),
        key(tmp_path, launched(tmp_path), described(driver="580")),
        key(tmp_path, launched(tmp_path), described({"revision": "r2"}, versions={"loadgen": "2"})),
        key(tmp_path, launched(tmp_path, ", options: {revision: abc}")),
        key(tmp_path, launched(tmp_path, more="repeats: 1\ndescription: other\nobjectives: [p50 ttft < 1 s]\n")),
        key(tmp_path, launched(tmp_path, load="concurrency: 4, drain_s: 5")),
        key(tmp_path, launched(tmp_path, more="repeats: 1\nnightly: {gate: {output_tok_s: 5%}}\n")),
    ]
    assert set(same) == {first}
    other_gpu = {"machine": {**MACHINE, "gpus": [{**GPU, "name": "H100"}]}}
    others = [
        key(tmp_path, launched(tmp_path, load="concurrency: 8")),
        key(tmp_path, launched(tmp_path, ", options: {dtype: float16}")),
        key(tmp_path, launched(tmp_path), described(**other_gpu)),
    ]
    assert len({first, *others}) == 4


def test_an_image_counts_by_its_name_and_how_it_is_pinned_begins_an_epoch(tmp_path: Path) -> None:
    floating, tagged, pinned = (
        points(tmp_path, launched(tmp_path, f", image: 'hub.example:5000/vllm{end}'"))[0]
        for end in ("", ":v0.9", "@sha256:abc")
    )
    assert len({one.series.key for one in (floating, tagged, pinned)}) == 1
    assert [one.facts["image_policy"] for one in (floating, tagged, pinned)] == ["floating", "tag", "digest"]
    assert policy_of("vllm/vllm-openai:nightly") == "floating"
    assert policy_of(None) is None


def test_words_from_the_environment_count_by_their_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for value in ("1", "2"):
        monkeypatch.setenv("SPEED", value)
        found.add(key(tmp_path, launched(tmp_path, ", env: {SPEED: '${env:SPEED}'}")))
    assert len(found) == 1


def test_a_point_is_the_mean_of_the_logarithms_of_the_good_repeats(tmp_path: Path) -> None:
    scenario = launched(tmp_path, more="repeats: 3\n")
    whole, part, none = (points(tmp_path, scenario, values=v) for v in ((90, 100, 110), (90, None, 110), [None] * 3))
    assert (whole[0].state, whole[0].reps) == ("ok", 3)
    assert whole[0].y == pytest.approx(math.log(90 * 100 * 110) / 3)
    assert (part[0].state, part[0].reps, part[0].value) == ("degraded", 2, pytest.approx(math.sqrt(90 * 110)))
    assert [(one.state, one.value) for one in none] == [("invalid", None)] * 2  # the primary ones: others are left out


def test_an_invalid_repeat_is_no_part_of_a_point(tmp_path: Path) -> None:
    run = made_run(tmp_path / "store", launched(tmp_path), {"a": [100]}, described(), state="invalid")
    assert {one.state for one in points_of(assemble(run))} == {"invalid"}


def test_the_scenario_names_what_raises_alarms_and_replies_that_come_whole_have_no_ttft(tmp_path: Path) -> None:
    named = launched(tmp_path, more="repeats: 1\nnightly: {primary: [p95 ttft]}\n")
    found = points(tmp_path, named)
    assert [one.series.measure for one in found if one.primary] == ["p95 ttft_s"]
    assert primaries({}) == ("output_tok_s", "p50 ttft_s")
    assert primaries({"workload": {"stream": False}}) == ("output_tok_s",)


def test_the_cells_of_a_routing_check_are_no_series(tmp_path: Path) -> None:
    scenario = made_scenario(tmp_path, "repeats: 1\n")
    asked = scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"routing_check": True})})
    assert len(expand(asked)) > 1
    assert {one.series.cell for one in points(tmp_path, asked, {"machine": MACHINE})} == {"all"}


# Epochs and alerts ----------------------------------------------------------------------------------------------------


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


def throughput(history: History) -> str:
    (found,) = history.find("output_tok_s")
    return found


def past(store: Path) -> Any:
    history = read_history(store)
    return history.by_now([throughput(history)])[throughput(history)]


def test_a_regression_is_alerted_once_stays_out_of_the_baseline_and_ends_by_recovering(
    store: tuple[Path, Scenario],
) -> None:
    states = [night(*store, value, again)[1][0].state for value, again in ((94, 94), (94.5, None), (100, None))]
    assert states == [State.REGRESSION, State.REGRESSION, State.OK]
    decided = [type(event) for event in read_events(store[0]) if not isinstance(event, Night)]
    assert decided == [Raised, Recovered]
    assert past(store[0]).nights == pytest.approx([math.log(value) for value in (*VECTOR[1:], 100)])


def test_a_night_that_somebody_deletes_takes_no_alert_with_it(store: tuple[Path, Scenario]) -> None:
    run = night(*store, 94, 94)[0]
    history = read_history(store[0])
    first = history.entries[throughput(history)][0].point.run
    shutil.rmtree(next(store[0].glob(f"runs/*/{first}")))
    known = past(store[0])
    assert known.alert == run.id
    assert known.nights == pytest.approx([math.log(value) for value in VECTOR[1:]])


def test_what_is_accepted_is_the_new_normal_from_the_night_of_the_alert_on(store: tuple[Path, Scenario]) -> None:
    first = night(*store, 94, 94)[0]
    night(*store, 95)
    history = read_history(store[0])
    series = throughput(history)
    assert failing(history.entries[series]) == 2
    assert history.night_of(series, None) == first.id
    append(store[0], [Accepted(at=AT, series=(series,), run=first.id)])
    known = past(store[0])
    assert known.nights == pytest.approx([math.log(94), math.log(95)])
    assert (known.epoch, known.alert) == (first.id, None)
    assert night(*store, 94)[1][0].state is State.LEARNING


@pytest.mark.parametrize(
    "changed", [described(driver="580"), described({"revision": "r2"})], ids=["driver", "revision"]
)
def test_another_driver_or_revision_begins_an_epoch_and_another_engine_version_does_not(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    root, scenario = tmp_path / "store", launched(tmp_path)
    root.mkdir()
    for fields in (described(), described({"version": "0.10"}), described()):
        night(root, scenario, 100, described=fields)
    before = read_history(root)
    series = throughput(before)
    assert len({entry.epoch for entry in before.entries[series]}) == 1
    run, verdicts = night(root, scenario, 50, described=changed)
    assert (verdicts[0].state, verdicts[0].epoch, verdicts[0].normal) == (State.LEARNING, run.id, None)
    assert past(root).nights == pytest.approx([math.log(50)])


def test_a_night_whose_facts_are_not_known_begins_no_epoch(tmp_path: Path) -> None:
    root, scenario = tmp_path / "store", launched(tmp_path)
    root.mkdir()
    for fields in (described(), described(servers={}), described()):
        night(root, scenario, 100, described=fields)
    history = read_history(root)
    assert len({entry.epoch for entry in history.entries[throughput(history)]}) == 1


def test_a_degraded_night_is_judged_and_is_no_part_of_the_baseline(tmp_path: Path) -> None:
    root, scenario = tmp_path / "store", launched(tmp_path, more="repeats: 2\n")
    root.mkdir()
    nights(root, scenario, [100.0, 101.0])
    run = made_run(root, scenario, {"a": [50, None]})
    tonight = points_of(assemble(run))
    append(root, [Night(at=AT, run=run.id, scenario="made", verdicts=())])
    assert tonight[0].state == "degraded"
    assert past(root).nights == pytest.approx([math.log(100), math.log(101)])


def test_pinned_nights_are_the_reference_of_slow_drift_and_are_kept(store: tuple[Path, Scenario]) -> None:
    history = read_history(store[0])
    series = throughput(history)
    runs = [entry.point.run for entry in history.entries[series]]
    append(store[0], [Pinned(at=AT, series=(series,), runs=tuple(runs[2:12]))])
    known = past(store[0])
    assert known.reference == pytest.approx([math.log(value) for value in VECTOR[2:12]])
    assert known.recent == pytest.approx([math.log(value) for value in VECTOR[12:]])  # none of the reference


def test_runs_of_the_window_the_reference_and_their_confirmations_are_kept(store: tuple[Path, Scenario]) -> None:
    everything = [run.id for run in nights(*store, [100] * 21)]
    old = [entry.point.run for entry in read_history(store[0]).entries[throughput(read_history(store[0]))]][:14]
    kept = read_history(store[0]).kept()
    assert kept >= {*old, *everything[-14:]}
    assert not kept & set(everything[:7])


@pytest.mark.parametrize(("cv", "pair", "floor"), [(0.02, 0.02, 0.01), (0.05, 0.04, math.hypot(0.03, 0.02))])
def test_a_calibrated_noise_floor_keeps_the_machines_moods_and_averages_the_rest(
    tmp_path: Path, cv: float, pair: float, floor: float
) -> None:
    root, scenario = tmp_path / "store", made_scenario(tmp_path, "repeats: 4\n")
    of_cell = {"cv": {"output_tok_s": cv}, "pair_cv": {"output_tok_s": pair}}
    cell = FloorCell(cell="all", axes={}, load=load_key(scenario), n=12, **of_cell)
    write_floor(root, Floor(key=machine_key(MACHINE), machine=MACHINE, scope="instance", scenario="made", target="a",
                            run="r", at=AT, cells=(cell,)))  # fmt: skip
    report = assemble(made_run(root, scenario, {"a": [100] * 4}))
    found = points_of(report)
    assert noise_floors(root, report, found) == {found[0].series.key: pytest.approx(floor)}


def test_a_series_lives_while_its_cell_is_measured_or_left_out_and_ends_with_the_scenario(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    both, one = (launched(tmp_path / name, more=f"repeats: 1\nmatrix: {{concurrency: {sizes}}}\n", load="ramp_s: 0")
                 for name, sizes in (("both", [4, 8]), ("one", [4])))  # fmt: skip
    night(root, both, 100)
    assert len(read_history(root).live()) == 4
    night(root, one, 100, described={"night": {"left_out": ["concurrency=8"]}})
    assert len(read_history(root).live()) == 4
    run = night(root, one, 100)[0]
    left = read_history(root)
    assert {left.series[key].cell for key in left.live()} == {"concurrency=4"}
    assert left.find("concurrency=8")  # what ended can still be looked at
    shutil.rmtree(run.folder)
    assert len(read_history(root).live()) == 4


# Events and the index -------------------------------------------------------------------------------------------------


def test_an_event_after_half_a_line_is_read_and_so_is_every_other(tmp_path: Path) -> None:
    append(tmp_path, [Recovered(at=AT, series="a", run="1")])
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"recovered","at":"202')
    assert [event.run for event in read_events(tmp_path) if isinstance(event, Recovered)] == ["1"]
    append(tmp_path, [Recovered(at=AT, series="a", run="2")])
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"of a later loadgen","at":"now"}\n')
    assert [event.run for event in read_events(tmp_path) if isinstance(event, Recovered)] == ["1", "2"]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_index_that_grew_equals_its_rebuild(store: tuple[Path, Scenario]) -> None:
    root, scenario = store
    run = night(root, scenario, 94, 94)[0]
    made_run(root, scenario, {"a": [100]})  # a run by hand is no night
    read_history(root)
    with (root / "events.jsonl").open("ab") as file:
        file.write(b'{"half')
    read_history(root)
    append(root, [Accepted(at=AT, series=("x",), run=run.id)])
    shutil.rmtree(run.folder)  # and somebody deleted a run
    read_history(root)
    grown = contents(root)
    assert reindex(root) == (16, 14)
    assert contents(root) == grown
    assert len(grown["points"]) == 28


def test_a_run_that_is_written_again_is_read_again(store: tuple[Path, Scenario]) -> None:
    root, scenario = store
    run = made_run(root, scenario, {"a": [100]}, {"status": "running"})
    read_history(root)
    time.sleep(0.01)
    run.write("run.json", {**run.read("run.json"), "status": "aborted"})
    read_history(root)
    assert dict(look(root, lambda index: index.execute("SELECT run, status FROM runs").fetchall(), print))[run.id] == (
        "aborted"
    )


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def _torn(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes(3000) + data[8000:])


def _later(path: Path) -> None:
    with sqlite3.connect(path) as index:
        index.execute("PRAGMA user_version = 99")
    index.close()


def _without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as index:
        index.execute("DROP TABLE points")
    index.close()


@pytest.mark.parametrize("harm", [_garbage, _torn, _later, _without_a_table])
def test_an_index_that_cannot_be_used_is_made_anew_and_a_sentence_says_so(
    store: tuple[Path, Scenario], harm: Any
) -> None:
    root = store[0]
    read_history(root)
    whole = contents(root)
    for end in ("-wal", "-shm"):
        (root / f"{NAME}{end}").unlink(missing_ok=True)
    harm(root / NAME)
    said: list[str] = []
    assert len(read_history(root, said.append).nights) == 14
    assert [text for text in said if "is made anew from the runs" in text] == said
    assert len(said) == 1
    assert contents(root) == whole


def test_an_empty_file_becomes_an_index_without_a_word(store: tuple[Path, Scenario]) -> None:
    (store[0] / NAME).unlink(missing_ok=True)
    (store[0] / NAME).touch(mode=0o600)
    said: list[str] = []
    assert len(read_history(store[0], said.append).nights) == 14
    assert said == []
    modes = {path.stat().st_mode & 0o777 for path in store[0].glob("*loadgen.db*")}
    assert modes == {0o600}


def test_processes_that_make_the_index_at_once_all_succeed(store: tuple[Path, Scenario]) -> None:
    (store[0] / NAME).unlink(missing_ok=True)
    code = (
        "import sys, pathlib; from loadgen.history import read_history; "
        "print(len(read_history(pathlib.Path(sys.argv[1]), print).nights))"
    )
    words = [sys.executable, "-c", code, str(store[0])]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in started] == ["14\n"] * 3
    grown = contents(store[0])
    reindex(store[0])
    assert contents(store[0]) == grown


def test_a_store_that_is_not_there_or_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store at"):
        read_history(tmp_path / "nowhere")
    (tmp_path / NAME).mkdir()
    with pytest.raises(StoreError, match="cannot use the index"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plan.json", "[]"),
        ("run.json", "{}"),
        ("run.json", '{"scenario": 1}'),
        ("cells/all/a/rep-001/attempt-1/summary.json", "{"),
    ],
)
def test_a_night_that_cannot_be_read_is_left_out_and_the_others_stay(
    store: tuple[Path, Scenario], file: str, text: str
) -> None:
    run = nights(*store, [100])[0]
    (run.folder / file).write_text(text)
    reindex(store[0])
    history = read_history(store[0])
    assert len(history.entries[throughput(history)]) == 14
    assert len(history.nights) == 15


# Blame ----------------------------------------------------------------------------------------------------------------


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
    night(root, launched(tmp_path, load="concurrency: 4, max_rps: 3"), 50, described=described({"version": "0.10"}))
    history = read_history(root)
    found = [str(change) for change in history.changes(throughput(history))]
    assert "engine_version 0.9 -> 0.10" in found
    assert "scenario.load.max_rps (not known) -> 3.0" in found


# Commands -------------------------------------------------------------------------------------------------------------


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
