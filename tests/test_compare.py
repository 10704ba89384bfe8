"""Cells compared: verdicts, refusals, sentences and crossings, against known answers."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from test_summarise import failure, reply

from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import CellPairs, ComparedCell, Comparison, Settings, Sides
from loadgen.comparing.crossing import Point, find
from loadgen.errors import UsageError
from loadgen.statistics import Verdict, mean_interval
from loadgen.summarise import summarise
from loadgen.summary import Distribution, Summary, Window

A = (1000, 1012, 995, 1004, 990, 1008)
B = (1431, 1440, 1419, 1448, 1409, 1441)
OK = summarise([reply() for _ in range(400)], Window(10, 40))


def repeat(tok_s: float, **fields: object) -> Summary:
    return msgspec.structs.replace(OK, output_tok_s=float(tok_s), **fields)


def latency(p50: float) -> Summary:
    return msgspec.structs.replace(OK, ttft_s=Distribution(n=400, p50=p50))


def cell(before: tuple = A, after: tuple = B, concurrency: object = 16, **fields: object) -> CellPairs:
    sides = [
        [one if one is None or isinstance(one, Summary) else repeat(one) for one in side] for side in (before, after)
    ]
    known = {"cell": f"c{concurrency}", "axes": {"load.concurrency": concurrency}, "baseline": "dense"}
    return CellPairs(
        **{**known, "candidate": "moe", "baseline_repeats": sides[0], "candidate_repeats": sides[1], **fields}
    )


def only(found: Comparison) -> ComparedCell:
    assert len(found.cells) == 1
    return found.cells[0]


def test_the_vector_of_the_specification_reads_as_a_sentence():
    found = only(compare([cell()]))
    assert found.primary.verdict is Verdict.FASTER
    assert (
        found.primary.sentence
        == "moe serves 1.429 times the output tok/s of dense at concurrency 16 [1.422, 1.437]: faster"
    )
    assert found.primary.baseline_values == A
    assert found.doubts == ()


def test_less_latency_is_faster_and_says_so():
    before, after = [latency(x / 1e4) for x in B], [latency(x / 1e4) for x in A]
    found = only(compare([cell(tuple(before), tuple(after))], Settings(primary="p50 ttft")))
    assert found.primary.verdict is Verdict.FASTER
    assert (
        found.primary.sentence == "moe has 0.700 times the p50 TTFT of dense at concurrency 16 [0.696, 0.703]: faster"
    )


def test_two_repeats_give_a_ratio_and_the_reason_why_there_is_no_interval():
    found = only(compare([cell(A[:2], B[:2])])).primary
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.sentence == (
        "moe serves 1.43 times the output tok/s of dense at concurrency 16 "
        "(no interval: fewer than 3 repeats): inconclusive"
    )


def test_an_inconclusive_cell_says_how_many_repeats_would_settle_it():
    found = only(compare([cell((100, 101, 99, 100), (103, 98, 104, 99))])).primary
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.repeats_needed == 16
    assert found.sentence.endswith("inconclusive (16 repeats or more would be needed)")
    wider = only(compare([cell((100, 101, 99, 100), (106, 101, 107, 102))], Settings(margins={"output_tok_s": 0.03})))
    assert wider.primary.sentence.endswith(
        f"inconclusive (about {wider.primary.repeats_needed} repeats would settle it)"
    )


def test_a_small_ratio_keeps_two_digits():
    found = only(compare([cell(A[:2], tuple(a / 40 for a in A[:2]))])).primary
    assert "serves 0.025 times" in found.sentence


def test_an_end_of_an_interval_that_is_not_1_is_not_written_as_1():
    """Two decimals would do for their width, and both would begin at 1.00."""
    above = only(compare([cell((1000, 1000, 1000), (1010, 1020, 1013))])).primary
    assert "1.014 times" in above.sentence
    assert "[1.002, 1.027]" in above.sentence
    below = only(compare([cell((1000, 1000, 1000), (1010, 1021, 1012))])).primary
    assert "[0.9999, 1.0290]: inconclusive" in below.sentence


def test_a_against_itself_is_equivalent():
    assert only(compare([cell(A, (1002, 1009, 996, 1001, 993, 1006))])).primary.verdict is Verdict.EQUIVALENT


def test_holm_is_over_the_cells_so_that_one_of_many_needs_more():
    weak = cell((100, 100, 100), (104.4, 106.2, 107.5))
    noise = [cell((100, 101, 99), (101, 99, 100), i) for i in range(20)]
    assert only(compare([weak])).primary.verdict is Verdict.FASTER
    together = compare([weak, *noise])
    assert together.cells[0].primary.verdict is Verdict.INCONCLUSIVE
    assert "Holm's procedure at 5 % over 21 cells decides which cells are called different." in together.notes
    assert together.cells[0].primary.ratio == only(compare([weak])).primary.ratio


def test_secondary_measures_get_a_ratio_and_no_verdict():
    found = only(compare([cell()], Settings(secondary=("request_rps",)))).secondary["request_rps"]
    assert found.verdict is None
    assert found.sentence == "moe serves 1.000 times the requests/s of dense at concurrency 16 [1.000, 1.000]"


def test_margins_are_those_of_the_measure_then_of_the_metric_then_the_defaults():
    settings = Settings(secondary=("p99 ttft", "p50 ttft", "p50 tpot"), margins={"ttft": 0.2, "p99 ttft_s": 0.3})
    found = only(compare([cell()], settings))
    assert found.primary.margin == 0.02
    assert [compared.margin for compared in found.secondary.values()] == [0.3, 0.2, 0.03]


def test_an_unknown_measure_is_refused():
    with pytest.raises(UsageError, match="output_tok_s"):
        compare([cell()], Settings(primary="output_toks"))


# Refused --------------------------------------------------------------------------------------------------------------


def test_an_invalid_repeat_is_never_averaged_in():
    bad = summarise([reply(t_sched=9.0) for _ in range(9)], Window(10, 40))
    found = only(compare([cell((*A[:5], bad))]))
    assert found.primary.verdict is Verdict.INVALID
    assert found.primary.ratio is None
    assert found.primary.sentence.startswith(
        "output tok/s at concurrency 16 is invalid: repeat 6 of dense is invalid: The client sent late"
    )
    assert {compared.verdict for compared in found.secondary.values()} == {Verdict.INVALID}


def test_a_repeat_in_which_nothing_succeeded_makes_the_cell_invalid():
    dead = summarise([failure()], Window(10, 40))
    assert "repeat 1 of moe is failed: no request succeeded" in only(compare([cell(A[:1], (dead,))])).primary.sentence


def test_an_undeclared_difference_forbids_a_verdict():
    found = only(compare([cell(differences=("dtype is bfloat16 for dense and float16 for moe",))])).primary
    assert found.verdict is Verdict.NOT_COMPARABLE
    assert found.sentence == (
        "moe and dense are not comparable in output tok/s at concurrency 16: "
        "dtype is bfloat16 for dense and float16 for moe"
    )


@pytest.mark.parametrize(
    ("rates", "why"),
    [
        ((0.0, 0.01), "1 % of the requests to moe failed"),
        ((0.001, 0.007), "over 0.5 points apart"),
        ((0.004, 0.008), None),
    ],
)
def test_errors_forbid_a_verdict(rates, why):
    sides = [tuple(repeat(x, error_rate=rate) for x in side) for rate, side in zip(rates, (A, B), strict=True)]
    found = only(compare([cell(*sides)])).primary
    assert (found.verdict is Verdict.NOT_COMPARABLE) == (why is not None)
    assert why is None or why in found.sentence


def test_replies_of_another_length_leave_only_what_is_per_token():
    longer = tuple(repeat(x, out_tok=Distribution(n=400, mean=3.1)) for x in B)
    found = only(compare([cell(A, longer)], Settings(secondary=("request_rps", "p50 ttft", "p50 e2e"))))
    assert found.primary.verdict is Verdict.FASTER
    assert found.secondary["p50 ttft_s"].verdict is None
    assert found.secondary["request_rps"].verdict is Verdict.NOT_COMPARABLE
    assert found.secondary["p50 e2e_s"].sentence.endswith(
        "p50 e2e depends on the length of replies, and they had 3 tokens with dense and 3.1 with moe"
    )


@pytest.mark.parametrize(("share", "refused"), [(0.0095, False), (0.0105, True)])
def test_prompts_that_one_side_had_in_its_cache_leave_only_what_has_no_prefill_in_it(share, refused):
    cached = Sides((0.0,) * 6, (share,) * 6)
    found = only(compare([cell(cached=cached)], Settings(secondary=("p50 ttft", "p50 tpot", "request_rps"))))
    verdicts = [one.verdict is Verdict.NOT_COMPARABLE for one in (found.primary, *found.secondary.values())]
    assert verdicts == [refused, refused, False, refused]


def test_a_measure_that_is_blank_on_a_side_has_no_ratio_and_says_why():
    found = only(compare([cell()], Settings(primary="p99.9 ttft"))).primary
    assert (found.ratio, found.verdict) == (None, Verdict.INCONCLUSIVE)
    assert found.sentence.endswith("no ratio, p99.9 TTFT is blank: there are too few samples, or none")
    assert only(compare([cell(A, (0,) * 6)])).primary.sentence.endswith(
        "output tok/s is zero on a side, and zero has no ratio"
    )


# Doubts ---------------------------------------------------------------------------------------------------------------


def codes(found: ComparedCell) -> list[str]:
    return [doubt.code for doubt in found.doubts]


def test_a_missing_repeat_takes_its_pair_with_it():
    found = only(compare([cell((A[0], None, *A[2:]))]))
    assert found.primary.ratio.n == 5
    assert codes(found) == ["half_block", "missing"]


def test_a_repeat_without_a_value_takes_its_pair_with_it_and_says_so():
    before = [latency(0.1 + i / 1e3) for i in range(6)]
    found = only(compare([cell((*before[:5], OK), tuple(before))], Settings(primary="p99.9 ttft")))
    assert (found.primary.ratio, codes(found)) == (None, [])
    blank = msgspec.structs.replace(OK, ttft_s=Distribution(n=2))
    found = only(compare([cell((*before[:5], blank), tuple(before))], Settings(primary="p50 ttft")))
    assert found.primary.ratio.n == 5
    assert found.doubts[-1].text == "1 repeats at concurrency 16 have no p50 TTFT; their pairs are left out."


def test_nothing_measured_is_no_ratio():
    assert only(compare([cell((None,), (None,))])).primary.sentence.endswith("no ratio, no repeat was measured")


def test_sides_that_were_not_interleaved_get_welch_and_a_doubt():
    found = only(compare([cell(A, B[:4], paired=False)]))
    assert found.primary.ratio.paired is False
    assert codes(found) == ["not_interleaved"]
    lacking = only(compare([cell((None, *A), (*B[:4], None, repeat(0)), paired=False)]))
    assert lacking.primary.ratio == found.primary.ratio


def test_scope_and_sequential_repeats_are_noted():
    notes = compare([cell()], Settings(scope="instance", sequential=True)).notes
    assert any(note.startswith("Repeats ran on one instance") for note in notes)
    assert any(note.startswith("Sequential") for note in notes)


def test_a_comparison_is_json_and_comes_back_equal():
    found = compare([cell(concurrency=i) for i in (1, 4)], Settings(axis="load.concurrency"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_a_scenario_without_a_matrix_is_compared_without_a_place():
    assert " of dense [" in only(compare([cell(axes={})])).primary.sentence


# Crossings ------------------------------------------------------------------------------------------------------------


def ladder(ratios: dict[int, float], noise: float = 0.002, **fields: object) -> list[CellPairs]:
    """Cells whose true ratio at each concurrency is given, with six noisy pairs each."""
    rng = np.random.default_rng(4)
    made = []
    for x, ratio in ratios.items():
        before, after = 1000 * np.exp(noise * rng.standard_normal((2, 6)))
        made.append(cell(tuple(before.tolist()), tuple((after * ratio).tolist()), x, **fields))
    return made


def crossed(cells: list[CellPairs], **settings: object) -> Comparison:
    return compare(cells, Settings(axis="load.concurrency", **{"secondary": (), **settings}))


def test_a_known_crossing_is_found_between_its_neighbours_and_interpolated():
    truth = 23.0  # ln ratio is linear in ln concurrency, so that the interpolation has a right answer
    found = crossed(ladder({x: math.exp(0.1 * math.log(x / truth)) for x in (1, 4, 16, 64, 256)})).crossings[0]
    (one,) = found.crossings
    assert (one.low, one.high, one.direction, one.decided, one.pairs) == (16, 64, "overtakes", True, 6)
    low, high = one.interval
    assert low < truth < high
    assert one.at == pytest.approx(truth, rel=0.03)
    assert found.sentence.startswith("moe overtakes dense in output tok/s between concurrency 16 and 64, at 22.9 [")


def test_the_crossing_is_covered_by_its_interval_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(9), 0
    for _ in range(300):
        d = np.array([-0.05, 0.08])[:, None] + 0.01 * rng.standard_normal((2, 6))
        points = [
            Point(x, float(row.mean()), sign, dict(enumerate(row)))
            for x, row, sign in zip((8, 32), d, (-1, 1), strict=True)
        ]
        (one,) = find(points)
        truth = 8 * 4 ** (0.05 / 0.13)
        hits += one.interval[0] <= truth <= one.interval[1]
    assert 0.9 <= hits / 300 <= 0.99


def test_the_interval_of_a_certain_crossing_ends_where_the_cells_say_otherwise():
    """Three pairs, one of which crosses far from the others: t(2) reaches past cells whose sides are known."""
    d = {4.0: (-0.6, -0.5, -0.4), 16.0: (0.3, -0.3, -0.35), 64.0: (0.30, 0.34, 0.36)}
    signs = {4.0: -1, 16.0: 0, 64.0: 1}
    line = [Point(x, sum(row) / 3, signs[x], dict(enumerate(row))) for x, row in d.items()]
    (one,) = find(line)
    places = [
        math.log(4) + math.log(4) * 2 / 3,
        *(math.log(16) + math.log(4) * b / (b + c) for b, c in ((0.3, 0.34), (0.35, 0.36))),
    ]
    assert one.at == pytest.approx(math.exp(sum(places) / 3))
    assert mean_interval(places)[1] > math.log(64)
    assert one.interval == (pytest.approx(math.exp(mean_interval(places)[0])), 64.0)


def test_every_crossing_is_reported_with_its_direction():
    found = crossed(ladder({1: 1.4, 16: 0.8, 64: 0.7, 256: 1.3})).crossings[0]
    assert [(one.low, one.high, one.direction) for one in found.crossings] == [
        (1, 16, "falls behind"),
        (64, 256, "overtakes"),
    ]
    assert found.sentence.count(";") == 1


def test_a_target_that_wins_everywhere_does_not_cross():
    found = crossed(ladder({1: 1.2, 16: 1.3, 256: 1.4})).crossings[0]
    assert found.crossings == ()
    assert found.sentence == "no crossing of moe and dense in output tok/s in concurrency 1..256"
    assert (found.first, found.last) == (1, 256)


def test_a_bracket_reaches_over_cells_that_are_not_decided():
    found = crossed(ladder({1: 0.8, 4: 1.0001, 16: 0.9999, 64: 1.3})).crossings[0]
    (one,) = found.crossings
    assert (one.low, one.high, one.decided) == (1, 64, True)


def test_of_several_changes_of_sign_in_a_bracket_the_middle_one_is_the_place():
    d = (-0.1, 0.01, -0.01, 0.01, -0.01, 0.1)
    line = [Point(2.0**i, d[i], (-1, 0, 0, 0, 0, 1)[i], {}) for i in range(6)]
    (one,) = find(line)
    assert (one.low, one.high, one.decided, one.at) == (1, 32, True, pytest.approx(math.sqrt(4 * 8)))


def test_a_cell_of_exact_equality_is_on_neither_side_of_a_change():
    line = [Point(x, d, 0, {}) for x, d in ((1.0, -0.1), (4.0, 0.0), (16.0, 0.1))]
    (one,) = find(line)
    assert (one.low, one.high, one.decided, one.at) == (1, 16, False, pytest.approx(4))
    assert find([Point(x, d, 0, {}) for x, d in ((1.0, 0.1), (4.0, 0.0), (16.0, 0.1))]) == ()


def test_a_change_of_sign_that_no_interval_backs_is_reported_as_undecided():
    cells = [cell((100, 101, 99), (99, 100.5, 99.1), 1), cell((100, 101, 99), (104, 100, 100), 4)]
    found = crossed(cells).crossings[0]
    assert [one.decided for one in found.crossings] == [False]
    assert found.sentence.startswith("no crossing of moe and dense")
    assert "the sign of the difference also changes between 1 and 4" in found.sentence


def test_a_crossing_of_the_means_alone_has_a_place_without_an_interval():
    found = crossed(ladder({4: 0.8, 16: 1.25}, noise=0.001, paired=False)).crossings[0]
    assert found.sentence.endswith("between concurrency 4 and 16, at about 8.01")


def test_less_latency_overtakes():
    cells = [
        cell(tuple(latency(0.1 + i / 1e4) for i in range(4)), tuple(latency(0.1 * f + i / 1e4) for i in range(4)), x)
        for x, f in ((1, 1.5), (16, 0.5))
    ]
    assert crossed(cells, primary="p50 ttft").crossings[0].crossings[0].direction == "overtakes"


def test_refused_cells_are_passed_over_in_the_search():
    cells = ladder({1: 0.8, 64: 1.3})
    refused = cell(concurrency=16, differences=("another driver",))
    (one,) = crossed([cells[0], refused, cells[1]]).crossings[0].crossings
    assert (one.low, one.high) == (1, 64)


def test_sides_without_pairs_cross_at_their_means_without_an_interval():
    (one,) = crossed(ladder({4: 0.8, 16: 1.25}, noise=0.001, paired=False)).crossings[0].crossings
    assert one.at == pytest.approx(8, rel=0.01)
    assert (one.interval, one.pairs, one.decided) == (None, 0, True)


def test_cells_that_differ_in_another_axis_are_searched_apart():
    cells = []
    for length, ratio in ((32, 0.8), (512, 1.2)):
        for x in (1, 16):
            cells.append(
                cell(tuple(A), tuple(ratio * a for a in A), axes={"load.concurrency": x, "output.exact": length})
            )
    found = crossed(cells)
    assert [one.group for one in found.crossings] == [{"output.exact": 32}, {"output.exact": 512}]
    assert all(one.crossings == () for one in found.crossings)
    assert found.crossings[0].sentence == (
        "no crossing of moe and dense in output tok/s at exact 32 in concurrency 1..16"
    )


@pytest.mark.parametrize("axis", [None, "workload.prompts", "load.concurrency"])
def test_one_cell_or_an_axis_that_is_no_number_has_no_crossings(axis):
    found = compare([cell(axes={"workload.prompts": "natural", "load.concurrency": 4})], Settings(axis=axis))
    assert found.crossings == ()
