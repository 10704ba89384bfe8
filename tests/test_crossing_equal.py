"""Curves, and two targets at an equal batch and at equal interactivity, against curves whose crossing is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_summarise import reply

from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import CellPairs, Comparison, Crossings, Settings, Sides
from loadgen.comparing.curve import at, front, growing, overlap
from loadgen.summarise import summarise
from loadgen.summary import Distribution, Summary, Window

OK = summarise([reply() for _ in range(40)], Window(10, 40))
LADDER = (1, 4, 16, 64, 256)

Model = Callable[[float], float]
"""Output tok/s of a server that runs a batch of this size."""


def dense(batch: float) -> float:
    return 100 * batch**0.7


def power(at_one: float, exponent: float) -> Model:
    return lambda batch: at_one * batch**exponent


class Target:
    """A server by its law of throughput; at a concurrency it runs ``share`` of it at once, and never above ``most``."""

    def __init__(self, model: Model, share: float = 1.0, most: float = math.inf, noise: float = 0.002) -> None:
        self.model, self.share, self.most, self.noise = model, share, most, noise

    def repeat(self, concurrency: float, rng: np.random.Generator) -> tuple[Summary, float]:
        batch = min(self.share * concurrency, self.most)
        batch *= math.exp(self.noise * rng.standard_normal())
        tok_s = self.model(batch) * math.exp(self.noise * rng.standard_normal())
        return repeat(float(tok_s), float(tok_s / batch)), float(batch)


def repeat(tok_s: float, user: float | None) -> Summary:
    return msgspec.structs.replace(OK, output_tok_s=tok_s, decode_tok_s=Distribution(n=40, p50=user))


def cells(
    before: Target,
    after: Target,
    ladder: Sequence[float] = LADDER,
    repeats: int = 6,
    rng: np.random.Generator | None = None,
    **fields: object,
) -> list[CellPairs]:
    rng, made = rng or np.random.default_rng(5), []
    for x in ladder:
        a, b = ([side.repeat(x, rng) for _ in range(repeats)] for side in (before, after))
        known = {"cell": f"c{x}", "axes": {"concurrency": x}, "baseline": "dense", "candidate": "moe"}
        sides = {"baseline_repeats": [one for one, _ in a], "candidate_repeats": [one for one, _ in b]}
        batches = Sides(tuple(batch for _, batch in a), tuple(batch for _, batch in b))
        made.append(CellPairs(**{**known, **sides, "batch_seen": batches, **fields}))
    return made


def along(found: Comparison, axis: str) -> Crossings:
    (one,) = [one for one in found.crossings if (one.axis, one.measure) == (axis, "output_tok_s")]
    return one


def compared(made: list[CellPairs], axis: str = "batch_seen", **settings: object) -> Crossings:
    return along(compare(made, Settings(axis="concurrency", **{"secondary": (), **settings})), axis)


# Curves ---------------------------------------------------------------------------------------------------------------


def test_a_power_law_is_interpolated_exactly_and_never_extrapolated():
    curve = [(x, 3 * x**0.4) for x in (1.0, 7.0, 50.0)]
    assert [at(curve, x) for x in (1.0, 7.0, 50.0)] == [y for _, y in curve]
    assert at(curve, 20.0) == pytest.approx(3 * 20**0.4)
    assert (at(curve, 0.99), at(curve, 50.1), at([], 1.0)) == (None, None, None)


def test_two_points_at_one_place_have_a_value_there():
    assert at([(2.0, 5.0), (2.0, 9.0), (4.0, 9.0)], 2.0) in (5.0, 9.0)
    assert at([(2.0, 5.0)], 2.0) == 5.0


POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_no_point_beats_in_both(points):
    found = front(points)
    assert [x for x, _ in found] == sorted({x for x, _ in found})
    for x, y in points:
        beaten = any((a >= x and b >= y) and (a, b) != (x, y) for a, b in points)
        assert ((x, y) in found) != beaten


def test_a_batch_that_no_longer_grows_adds_no_point():
    assert growing([1, 4, 15.9, 16, 15.8, 40]) == [0, 1, 2, 5]


def test_what_curves_have_in_common_is_what_all_of_them_reach():
    one, two, far = [(1.0, 1.0), (9.0, 1.0)], [(3.0, 1.0), (20.0, 1.0)], [(9.0, 1.0), (10.0, 1.0)]
    assert overlap([one, two]) == (3.0, 9.0)
    assert (overlap([one, far]), overlap([]), overlap([one, []])) == (None, None, None)


# At an equal batch ----------------------------------------------------------------------------------------------------


def test_the_batch_at_which_two_laws_cross_is_found_though_the_client_asked_for_another():
    moe = power(100 * 20**-0.2, 0.9)  # equal to dense at a batch of 20
    made = cells(Target(dense, share=1.0), Target(moe, share=0.5))
    found = compared(made)
    (one,) = found.crossings
    assert (one.direction, one.decided, one.pairs) == ("overtakes", True, 6)
    assert one.low < 20 < one.high
    assert one.interval[0] < one.at < one.interval[1]
    assert one.at == pytest.approx(20, rel=0.03)
    # the candidate runs half the batch at the same concurrency, and is behind at each that was measured
    assert compared(made, "concurrency").crossings == ()


def test_the_common_range_is_stated_and_nothing_is_looked_for_outside():
    moe = power(100 * 150**-0.2, 0.9)  # crosses at 150, which the candidate never runs
    found = compared(cells(Target(dense, noise=0), Target(moe, share=0.4, noise=0)))
    assert (found.first, found.last) == (1, pytest.approx(102.4))
    assert found.crossings == ()
    assert found.sentence == "no crossing of moe and dense in output tok/s in batch_seen 1..102, which both ran"


def test_both_crossings_of_an_moe_are_found_by_batch_with_their_directions():
    def moe(batch: float) -> float:  # wins at 1, loses around 20, wins again
        return dense(batch) * (0.8 + 0.06 * math.log(batch / 20) ** 2)

    ladder = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    found = compared(cells(Target(dense, share=0.9), Target(moe, share=0.8), ladder))
    assert [one.direction for one in found.crossings] == ["falls behind", "overtakes"]
    reach = math.sqrt(0.2 / 0.06)
    for one, truth in zip(found.crossings, (20 * math.exp(-reach), 20 * math.exp(reach)), strict=True):
        assert one.low < truth < one.high
        assert one.at == pytest.approx(truth, rel=0.1)  # between two cells the law is no straight line
    assert found.sentence.index("moe falls behind dense") < found.sentence.index("; moe overtakes dense")


def test_cells_of_a_server_that_is_full_are_one_point():
    full = Target(dense, most=40)
    found = compared(cells(full, Target(power(90, 0.7), most=40)))
    assert found.last == pytest.approx(40, rel=0.02)
    assert {one.cell for one in found.equal} == {"c1", "c4", "c16", "c64"}


def test_the_ratio_at_every_cell_of_either_side_has_its_interval():
    found = compared(cells(Target(dense), Target(power(130, 0.7), share=0.5)))
    places = [(one.target, one.cell) for one in found.equal]
    assert places[:3] == [("dense", "c1"), ("moe", "c4"), ("dense", "c4")]
    assert places[-1] == ("moe", "c256")
    for one in found.equal:
        assert one.ratio.low < one.ratio.value < one.ratio.high
        assert one.ratio.value == pytest.approx(1.3, rel=0.005)
        assert one.ratio.n == 6


def test_a_server_that_does_not_say_its_batch_has_no_crossing_by_it():
    made = [msgspec.structs.replace(cell, batch_seen=Sides()) for cell in cells(Target(dense), Target(dense))]
    silent = [
        msgspec.structs.replace(cell, batch_seen=Sides(cell.batch_seen.baseline, (None,) * 6))
        for cell in cells(Target(dense), Target(dense))
    ]
    for one in (made, silent):
        found = compare(one, Settings(axis="concurrency", secondary=()))
        assert [crossing.axis for crossing in found.crossings] == ["concurrency", "interactivity"]


@pytest.mark.parametrize("said", [0.0, -3.0, math.inf, math.nan])
def test_a_batch_that_cannot_be_costs_its_repeat_and_nothing_else(said):
    made = cells(Target(dense), Target(power(80, 0.8)))
    strange = Sides((said, *made[1].batch_seen.baseline[1:]), made[1].batch_seen.candidate)
    made[1] = msgspec.structs.replace(made[1], batch_seen=strange)
    assert {one.ratio.n for one in compared(made).equal} == {5}


def test_servers_that_never_ran_one_batch_say_what_they_ran():
    found = compared(cells(Target(dense, share=1 / 16, noise=0), Target(dense, share=10, noise=0), LADDER[:3]))
    assert (found.first, found.last, found.crossings, found.equal) == (None, None, (), ())
    assert found.sentence == "moe and dense have no batch_seen in common: dense 0.0625..1 and moe 10..160"


def test_a_pair_that_lacks_a_cell_is_left_out_whole():
    made = cells(Target(dense), Target(power(80, 0.8)))
    short = [*made[2].baseline_repeats]
    short[3] = None
    made[2] = msgspec.structs.replace(made[2], baseline_repeats=short)
    assert {one.ratio.n for one in compared(made).equal} == {5}


def test_repeats_without_pairs_cross_at_their_means_with_welch_beside():
    found = compared(cells(Target(dense), Target(power(100 * 20**-0.2, 0.9)), paired=False))
    (one,) = found.crossings
    assert (one.decided, one.pairs, one.interval) == (True, 0, None)
    assert one.at == pytest.approx(20, rel=0.05)
    assert not found.equal[0].ratio.paired


def test_two_repeats_give_a_place_and_no_interval():
    found = compared(cells(Target(dense), Target(power(100 * 20**-0.2, 0.9)), repeats=2))
    assert [(one.decided, one.interval) for one in found.crossings] == [(False, None)]
    assert "where an interval still includes equality" in found.sentence


def test_less_time_at_the_same_batch_is_better():
    made = cells(Target(dense), Target(power(100 * 20**-0.2, 0.9)))

    def timed(one: Summary | None) -> Summary:
        assert one is not None
        return msgspec.structs.replace(one, tpot_s=Distribution(n=40, p50=1 / one.decode_tok_s.p50))

    made = [
        msgspec.structs.replace(
            cell,
            baseline_repeats=[timed(one) for one in cell.baseline_repeats],
            candidate_repeats=[timed(one) for one in cell.candidate_repeats],
        )
        for cell in made
    ]
    found = compare(made, Settings(primary="p50 tpot", axis="concurrency", secondary=()))
    (one,) = [one for one in found.crossings if one.axis == "batch_seen"]
    assert [crossing.direction for crossing in one.crossings] == ["overtakes"]


def test_a_sentence_says_which_of_the_other_axes_it_is_about():
    made = [
        msgspec.structs.replace(cell, axes={**cell.axes, "eager": eager})
        for eager in ("true", "false")
        for cell in cells(Target(dense, noise=0), Target(power(80, 0.8), noise=0))
    ]
    found = [one for one in compare(made, Settings(axis="concurrency", secondary=())).crossings if one.equal]
    assert [one.group["eager"] for one in found] == ["true", "true", "false", "false"]
    assert all(f" at eager {one.group['eager']} " in one.sentence for one in found)


@pytest.mark.parametrize("axis", ["workload.input_tokens", "output.exact"])
def test_cells_that_differ_in_their_work_are_no_curve_of_one_target(axis):
    made = [
        msgspec.structs.replace(cell, axes={axis: int(cell.cell[1:])}) for cell in cells(Target(dense), Target(dense))
    ]
    assert {one.axis for one in compare(made, Settings(axis=axis)).crossings} == {axis}


# At equal interactivity -----------------------------------------------------------------------------------------------


def test_at_equal_interactivity_the_fronts_cross_where_their_laws_do():
    # tok/s a user u = a b^(e-1) and tok/s = a b^e give tok/s = a^(1/(1-e)) u^(-e/(1-e)): two lines in ln u
    moe = power(80, 0.8)
    truth = math.exp((math.log(80) / 0.2 - math.log(100) / 0.3) / (0.8 / 0.2 - 0.7 / 0.3))
    found = compared(cells(Target(dense), Target(moe)), "interactivity")
    (one,) = found.crossings
    assert one.direction == "falls behind"  # as a user gets more, so towards small batches
    assert one.low < truth < one.high
    assert one.at == pytest.approx(truth, rel=0.03)
    assert found.per == "server"
    assert found.sentence.startswith("at equal interactivity moe serves the output tok/s per server of dense ")
    assert found.sentence.count(" tok/s a user") == 3


def test_output_is_divided_by_the_gpus_of_each_target_where_both_are_known():
    plain = compared(cells(Target(dense), Target(dense)), "interactivity")
    known = compared(cells(Target(dense), Target(dense), gpus=(2, 1)), "interactivity")
    half = compared(cells(Target(dense), Target(dense), gpus=(2, None)), "interactivity")
    assert (plain.per, known.per, half.per) == ("server", "GPU", "server")
    for one, two in zip(plain.equal, known.equal, strict=True):
        assert two.ratio.value == pytest.approx(2 * one.ratio.value)
    assert "the output tok/s per GPU of dense" in known.sentence
    none = compared(cells(Target(dense), Target(dense), gpus=(0, 0)), "interactivity")  # servers on CPUs
    assert [one.ratio for one in none.equal] == [one.ratio for one in plain.equal]


def test_cells_behind_the_front_take_no_part():
    def thrashes(batch: float) -> float:  # past 64 more load makes everything slower
        return dense(batch) if batch <= 64 else dense(64) * (64 / batch) ** 0.5

    found = compared(cells(Target(thrashes), Target(power(90, 0.75))), "interactivity")
    assert "c256" not in {one.cell for one in found.equal if one.target == "dense"}
    assert found.first == pytest.approx(dense(64) / 64, rel=0.02)


def test_replies_that_came_whole_have_no_interactivity():
    made = [
        msgspec.structs.replace(cell, candidate_repeats=[repeat(100.0, None)] * 6)
        for cell in cells(Target(dense), Target(dense))
    ]
    found = compare(made, Settings(axis="concurrency", secondary=()))
    assert "interactivity" not in {one.axis for one in found.crossings}


def test_users_that_one_target_never_serves_as_fast_are_said():
    found = compared(
        cells(Target(power(100, 0.9), noise=0), Target(power(1000, 0.9), noise=0), LADDER[:2]), "interactivity"
    )
    assert found.sentence == "moe and dense have no tok/s a user in common: dense 87.1..100 and moe 871..1000"


def test_interactivity_is_about_output_whatever_the_primary_measure_is():
    found = compare(cells(Target(dense), Target(power(80, 0.8))), Settings(primary="p50 tpot", axis="concurrency"))
    assert along(found, "interactivity").crossings


def test_the_interval_at_an_equal_batch_covers_about_as_often_as_it_says():
    rng, hits, tries = np.random.default_rng(11), 0, 200
    for _ in range(tries):
        (spot,) = [one for one in compared(_noisy(rng)).equal if (one.target, one.cell) == ("moe", "c32")]
        hits += spot.ratio.low <= spot.x ** (0.85 - 0.7) <= spot.ratio.high
    assert 0.9 <= hits / tries <= 0.99


def _noisy(rng: np.random.Generator) -> list[CellPairs]:
    noisy = Target(dense, noise=0.01), Target(power(100, 0.85), share=0.8, noise=0.01)
    return cells(*noisy, (8, 32, 128), rng=rng)


def test_both_crossings_of_an_moe_are_found_at_equal_interactivity():
    def moe(batch: float) -> float:
        return dense(batch) * (0.8 + 0.06 * math.log(batch / 20) ** 2)

    found = compared(cells(Target(dense), Target(moe), [2**i for i in range(10)]), "interactivity")
    assert [one.direction for one in found.crossings] == ["falls behind", "overtakes"]
    reach = math.sqrt(0.2 / 0.06)  # equal output at an equal speed is an equal batch
    for one, batch in zip(found.crossings, (20 * math.exp(reach), 20 * math.exp(-reach)), strict=True):
        assert one.at == pytest.approx(dense(batch) / batch, rel=0.1)
