"""What a store knows of its nights: epochs, the baseline of tonight, alerts, what must be kept."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_nights import AT, VECTOR, described, launched, made_scenario, night, nights, past, throughput
from made_runs import MACHINE, made_run

from loadgen.assemble import assemble
from loadgen.nights.baseline import failing
from loadgen.nights.events import Accepted, Night, Pinned, Raised, Recovered, append, read_events
from loadgen.nights.history import noise_floors, read_history
from loadgen.nights.series import points_of
from loadgen.nights.verdicts import State
from loadgen.noise import Floor, FloorCell, load_key, machine_key, write_floor
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
    sizes = "repeats: 1\nmatrix: {concurrency: [4, 8]}\n"
    both = launched(tmp_path, more=sizes, load_words="ramp_s: 0")
    one = launched(tmp_path, more=sizes.replace(", 8", ""), load_words="ramp_s: 0")
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
