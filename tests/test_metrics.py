"""The table of metrics and the values of a request."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import UsageError
from loadgen.metrics import METRICS, STATISTICS, Measure, find, late, margin, measure, stall, tpot, value
from loadgen.record import Record
from loadgen.summary import Distribution, Summary


def reply(**fields: object) -> Record:
    known = {"seq": 0, "session": 0, "phase": "measure", "t_sched": 1.0, "t_send": 1.25, "status": "ok"}
    return Record(**{**known, **fields})


def test_tpot_shares_the_time_after_the_first_token_among_the_other_tokens():
    assert tpot(0.1, 1.1, 11) == pytest.approx(0.1)


@pytest.mark.parametrize(("ttft", "e2e", "tokens"), [(0.1, 0.1, 1), (None, 1.0, 8), (0.1, None, 8), (0.1, 1.0, None)])
def test_tpot_is_none_under_two_tokens_and_where_a_part_is_unknown(ttft, e2e, tokens):
    assert tpot(ttft, e2e, tokens) is None


def test_ttft_from_schedule_adds_the_wait_before_the_send():
    assert value(reply(ttft_s=0.5), "ttft_from_schedule_s") == pytest.approx(0.75)


def test_ttft_from_schedule_is_none_for_a_whole_reply():
    assert value(reply(e2e_s=0.5), "ttft_from_schedule_s") is None


def test_a_request_that_was_never_sent_is_not_late():
    assert late(reply(t_send=None, status="dropped")) is None


def test_stall_is_the_longest_gap_between_chunks():
    assert stall(reply(chunk_us=[100_000, 110_000, 410_000, 420_000])) == pytest.approx(0.3)


@pytest.mark.parametrize("chunks", [[], [100_000]])
def test_stall_is_none_under_two_chunks(chunks):
    assert stall(reply(chunk_us=chunks)) is None


def test_decoding_speed_is_one_over_tpot_and_request_speed_holds_the_prefill():
    record = reply(ttft_s=1.0, e2e_s=2.0, tpot_s=0.1, out_tok=11)
    assert value(record, "decode_tok_s") == pytest.approx(10.0)
    assert value(record, "request_tok_s") == pytest.approx(5.5)


def test_tokens_that_all_came_at_once_have_no_decoding_speed():
    assert value(reply(tpot_s=0.0), "decode_tok_s") is None


def test_every_request_metric_has_a_value_function_and_no_other_has():
    for metric in METRICS.values():
        if metric.per == "request":
            assert value(reply(), metric.name) is None
        else:
            with pytest.raises(KeyError):
                value(reply(), metric.name)


def test_every_metric_is_a_field_of_the_summary_in_the_form_that_it_says():
    types = {field.name: field.type for field in __import__("msgspec").structs.fields(Summary)}
    for metric in METRICS.values():
        assert (types[metric.name] is Distribution) == (metric.per != "window"), metric.name


def test_every_definition_is_one_sentence():
    for metric in METRICS.values():
        assert metric.definition.endswith("."), metric.name
        assert ". " not in metric.definition, metric.name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("p99 ttft", Measure("ttft_s", "p99")),
        ("p99.9 e2e_s", Measure("e2e_s", "p99.9")),
        ("ttft", Measure("ttft_s", "p50")),
        ("mean chunk_gap", Measure("chunk_gap_s", "mean")),
        ("output_tok_s", Measure("output_tok_s")),
        ("goodput", Measure("goodput")),
        ("goodput_rps", Measure("goodput_rps")),
        ("error_rate", Measure("error_rate")),
    ],
)
def test_a_measure_is_read_from_words(words, expected):
    assert measure(words) == expected


@given(st.sampled_from(sorted(METRICS)), st.sampled_from(STATISTICS))
def test_a_measure_that_is_written_out_reads_as_itself(metric, statistic):
    what = Measure(metric, None if METRICS[metric].per == "window" else statistic)
    assert measure(str(what)) == what


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(UsageError, match=r"'ttfb'.*did you mean 'ttft_s'"):
        find("ttfb")


@pytest.mark.parametrize("words", ["p99 output_tok_s", "p98 ttft", "", "p99"])
def test_words_that_name_no_measure_are_refused(words):
    with pytest.raises(UsageError):
        measure(words)


def test_margins_are_two_percent_for_rates_three_for_middles_and_five_for_tails():
    assert [margin(measure(words)) for words in ("output_tok_s", "p50 ttft", "p95 ttft", "p99 tpot")] == [
        0.02,
        0.03,
        0.05,
        0.05,
    ]


def test_importing_the_structs_of_summary_and_comparison_loads_neither_numpy_nor_scipy():
    code = (
        "import sys, loadgen.metrics, loadgen.summarise, loadgen.comparing.compare, loadgen.judge, loadgen.histogram\n"
    )
    code += "print([name for name in ('numpy', 'scipy', 'hdrh') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
