"""Histograms add up, refuse what does not fit, and their log is read by others."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import StoreError
from loadgen.histogram import HIGHEST_US, Histogram, Interval, intervals, read_log, write_log
from loadgen.record import Record

VALUES = st.lists(st.integers(0, HIGHEST_US), max_size=60)
JAR = Path(os.environ.get("HDRHISTOGRAM_JAR", "/usr/share/java/hdrhistogram.jar"))


def reply(send: float, chunks: list[int], **fields: object) -> Record:
    known = {
        "seq": 0,
        "session": 0,
        "phase": "measure",
        "status": "ok",
        "t_sched": send,
        "t_send": send,
        "ttft_s": chunks[0] / 1e6,
        "e2e_s": chunks[-1] / 1e6,
        "chunk_us": chunks,
    }
    return Record(**{**known, **fields})


@settings(max_examples=30, deadline=None)
@given(VALUES, VALUES)
def test_the_merge_of_parts_is_the_histogram_of_the_union(one, other):
    merged = Histogram(one)
    merged.merge(Histogram(other))
    assert merged == Histogram(one + other)
    assert merged.n == len(one) + len(other)


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_the_text_of_a_histogram_gives_it_back(values):
    histogram = Histogram(values)
    back = Histogram.decode(histogram.encode())
    assert back == histogram
    assert back.max_us() == histogram.max_us()


@settings(max_examples=10, deadline=None)
@given(VALUES.filter(len))
def test_it_counts_as_the_library_does_value_by_value(values):
    theirs = HdrHistogram(1, HIGHEST_US, 3)
    for value in values:
        assert theirs.record_value(value)
    assert Histogram(values).counts() == {
        step.value_iterated_to: step.count_at_value_iterated_to for step in theirs.get_recorded_iterator()
    }


@given(st.integers(0, HIGHEST_US))
def test_a_value_is_kept_to_three_digits(value):
    kept = Histogram([value]).percentile_us(50)
    assert kept is not None
    assert value <= kept <= value * 1.001 + 1


@pytest.mark.parametrize("value", [-1, HIGHEST_US + 1, 10**15])
def test_a_value_out_of_range_raises_and_nothing_is_counted(value):
    histogram = Histogram([5])
    with pytest.raises(ValueError, match=f"not {value} us"):
        histogram.add([7, value])
    assert histogram.n == 1


def test_an_empty_histogram_has_no_percentile():
    assert Histogram().percentile_us(50) is None
    assert Histogram().n == Histogram().max_us() == 0


@pytest.mark.parametrize("tag", ["", "a,b", "a b", "a\n"])
def test_a_tag_that_would_break_the_line_is_refused(tag):
    with pytest.raises(ValueError, match="tag"):
        Interval(tag, 0, 1, Histogram())


def test_records_fall_into_the_second_in_which_what_they_measure_ended():
    records = [reply(0.5, [400_000, 600_000, 1_700_000]), reply(1.9, [50_000])]
    found = {(line.tag, line.start_s): line.histogram for line in intervals(records)}
    assert found == {
        ("ttft", 0): Histogram([400_000]),
        ("ttft", 1): Histogram([50_000]),
        ("e2e", 1): Histogram([50_000]),
        ("e2e", 2): Histogram([1_700_000]),
        ("chunk_gap", 1): Histogram([200_000]),
        ("chunk_gap", 2): Histogram([1_100_000]),
    }


def test_failed_and_warmup_requests_and_missing_times_are_left_out():
    records = [
        reply(0, [1000], status="reset"),
        reply(0, [1000], phase="warmup"),
        reply(0, [1000], ttft_s=None, e2e_s=None),
    ]
    assert list(intervals(records)) == []


def test_more_records_than_a_block_are_all_counted():
    records = [reply(i / 100, [1000, 3000]) for i in range(5000)]
    found = list(intervals(records))
    for tag in ("ttft", "e2e", "chunk_gap"):
        assert sum(line.histogram.n for line in found if line.tag == tag) == 5000


def written(tmp_path: Path) -> Path:
    records = [reply(i / 10, [20_000 + i, 35_000 + i, 47_000 + 3 * i]) for i in range(40)]
    with (path := tmp_path / "latency.hlog").open("w") as file:
        write_log(file, intervals(records), 1_790_000_000.25, "loadgen\nvalues in us")
    return path


def test_the_log_starts_with_version_times_comments_and_legend(tmp_path):
    assert written(tmp_path).read_text().splitlines()[:6] == [
        "#[Histogram log format version 1.3]",
        "#[StartTime: 1790000000.250 (seconds since epoch), 2026-09-21 14:13:20.250+00:00]",
        "#[BaseTime: 1790000000.250 (seconds since epoch)]",
        "#loadgen",
        "#values in us",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]


def test_a_line_holds_tag_start_length_and_largest_value():
    out = io.StringIO()
    out.write(Interval("ttft", 3, 1, Histogram([12_345])).line())
    assert out.getvalue().startswith("Tag=ttft,3.000,1.000,12.351,HISTFAAA")
    assert out.getvalue().count("\n") == 1


def test_the_log_is_read_back_as_it_was_written(tmp_path):
    records = [reply(i / 10, [20_000 + i, 35_000 + i, 47_000 + 3 * i]) for i in range(40)]
    back = [(line.tag, line.start_s, line.length_s, line.histogram) for line in read_log(written(tmp_path))]
    assert back == [(line.tag, line.start_s, line.length_s, line.histogram) for line in intervals(records)]


def test_the_log_is_read_by_the_reader_of_the_library(tmp_path):
    reader = HistogramLogReader(str(written(tmp_path)), HdrHistogram(1, HIGHEST_US, 3))
    counted: dict[str, int] = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        counted[histogram.get_tag()] = counted.get(histogram.get_tag(), 0) + histogram.get_total_count()
        assert 1_790_000_000_250 <= histogram.get_start_time_stamp() < 1_790_000_005_250
    reader.close()
    assert counted == {"ttft": 40, "e2e": 40, "chunk_gap": 80}


def test_a_log_that_was_cut_off_gives_its_whole_lines(tmp_path):
    path = written(tmp_path)
    whole = list(read_log(path))
    path.write_bytes(path.read_bytes()[:-7])
    assert len(list(read_log(path))) == len(whole) - 1


def test_a_line_without_a_tag_is_tagged_all(tmp_path):
    path = tmp_path / "other.hlog"
    path.write_text(Interval("x", 1, 1, Histogram([9])).line().removeprefix("Tag=x,"))
    assert [(line.tag, line.histogram) for line in read_log(path)] == [("all", Histogram([9]))]


@pytest.mark.parametrize("line", ["hello\n", "Tag=a,1.0,1.0,2.0,HISTFAAAnonsense\n", "Tag=a,x,1.0,2.0,HIST\n"])
def test_a_line_that_is_none_is_named_with_its_number(tmp_path, line):
    path = tmp_path / "bad.hlog"
    path.write_text("#[Histogram log format version 1.3]\n" + line)
    with pytest.raises(StoreError, match=r"bad\.hlog:2: this is no line of an interval log"):
        list(read_log(path))


@pytest.mark.engines
@pytest.mark.skipif(not (JAR.exists() and shutil.which("java")), reason="needs java and libhdrhistogram-java")
def test_the_log_is_read_by_the_java_tools(tmp_path):
    command = ["java", "-cp", str(JAR), "org.HdrHistogram.HistogramLogProcessor", "-i", str(written(tmp_path))]
    done = subprocess.run([*command, "-tag", "chunk_gap"], capture_output=True, text=True, check=True)
    assert "Total count    =           80]" in done.stdout
    assert "[StartTime: 1790000000.250 (seconds since epoch)" in done.stdout
