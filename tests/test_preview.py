"""The preview: its numbers are those of the requests that are really sent, and its plots fit the window."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from model_configs import QWEN15_32B

from loadgen.preview import Preview, preview, spread
from loadgen.reports.preview import bars, render
from loadgen.scenario import expand
from loadgen.scenario import load as load_scenario

POOL = "prefix: {pool: 5, tokens: 64, share: 0.5}"
MIX = (
    "workload:\n  prompts: mix\n  output: {exact: {uniform: {min: 1, max: 4}}}\n  mix:\n"
    f"    chat: {{weight: 3, prompts: synthetic, vocab_size: 900, input_tokens: 100, {POOL}}}\n"
    "    code: {prompts: synthetic, vocab_size: 900, input_tokens: {normal: {mean: 300, sd: 50}}}\n"
)


def previewed(folder: Path, workload: str, load: str, model: str = "m") -> list[Preview]:
    text = (
        f"targets: {{a: {{endpoint: 'http://127.0.0.1:9', model: {model}, backend: openai_completions}}}}\n"
        f"{workload}load: {{{load}}}\n"
    )
    cells = expand(load_scenario(write_scenario(folder, text)).scenario)
    return [preview(cell, folder) for cell in cells]


def test_a_preview_is_what_is_sent(tmp_path: Path):
    load = "rate_rps: 60, arrival: poisson, warmup_s: 0, requests: 60"
    with FakeServer(ttft_ms=1, gap_ms=0, dialect="openai_completions", prefix_cache=True) as server:
        text = (
            f"targets: {{a: {{endpoint: '{server.url}', model: m, backend: openai_completions}}}}\n{MIX}"
            f"load: {{{load}}}\nrepeats: 1\n"
        )
        path = write_scenario(tmp_path, text)
        told = loadgen(tmp_path, "plan", str(path), "--preview", "--json")
        done = loadgen(tmp_path, "run", str(path))
    (found,) = msgspec.json.decode(told.out, type=list[Preview])
    sent = done.records(done.attempts()[0])
    assert found.requests == found.seen == len(sent) == 60
    assert found.sources == Counter(record.source for record in sent)
    for spread_, lengths in (
        (found.input, [record.in_tok for record in sent]),
        (found.output, [record.out_tok for record in sent]),
    ):
        assert spread_ is not None
        assert (spread_.n, spread_.min, spread_.max) == (len(lengths), min(lengths), max(lengths))
        assert spread_.mean == pytest.approx(statistics.mean(lengths))
        assert sum(spread_.bins) == len(lengths)
    assert found.shared is not None
    total = sum(record.in_tok for record in sent)
    assert found.shared.blocks == pytest.approx(sum(record.cached_tok for record in sent) / total, abs=0.03)


def test_rates_over_time_are_those_of_the_schedule(tmp_path: Path):
    (found,) = previewed(
        tmp_path,
        "workload: {prompts: synthetic, vocab_size: 900, input_tokens: 9, output: {exact: 5}}\n",
        "rates: [[0, 10], [50, 100]], warmup_s: 10, window_s: 90",
    )
    assert found.rates_rps is not None
    assert statistics.mean(found.rates_rps[:20]) == pytest.approx(10, rel=0.25)
    assert statistics.mean(found.rates_rps[30:]) == pytest.approx(100, rel=0.1)
    assert found.length_s == pytest.approx(100, abs=0.5)
    assert found.warmup == pytest.approx(100, rel=0.4)
    assert found.requests == pytest.approx(5500, rel=0.05)


def test_a_load_that_ends_by_its_count_is_previewed_to_its_end(tmp_path: Path):
    words = "workload: {prompts: synthetic, vocab_size: 900, input_tokens: 9, output: {exact: 5}}\n"
    (found,) = previewed(tmp_path, words, "rate_rps: 10, arrival: constant, warmup_s: 2, requests: 30")
    assert (found.requests, found.warmup, found.length_s) == (50, 20, pytest.approx(4.9))
    (closed,) = previewed(tmp_path, words, "concurrency: 4, requests: 30")
    assert (closed.requests, closed.seen, closed.rates_rps) == (30, 30, None)
    (endless,) = previewed(tmp_path, words, "concurrency: 4, window_s: 5")
    assert (endless.requests, endless.seen) == (None, 1000)
    (burst,) = previewed(tmp_path, words, "burst: 12")
    assert (burst.requests, burst.length_s) == (12, 0.0)
    assert "12, all at once" in render([burst])


def test_a_load_of_more_than_is_looked_at_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loadgen.preview.MOST", 500)
    (found,) = previewed(
        tmp_path,
        "workload: {prompts: synthetic, vocab_size: 900, input_tokens: 9, output: {exact: 5}}\n",
        "rate_rps: 100, warmup_s: 0, window_s: 3600",
    )
    assert (found.requests, found.seen) == (None, 500)
    assert "requests  more than 500 in" in render([found])


def test_prompts_of_unknown_length_are_said_to_be_so(tmp_path: Path):
    words = "workload: {prompts: natural, output: {max: 40}}\n"
    (found,) = previewed(tmp_path, words, "concurrency: 2, window_s: 1")
    assert found.input is None
    shown = render([found], 80)
    assert "as many tokens as the server counts" in shown
    assert "output <=   40 tokens each" in shown or "output <= 40 tokens each" in shown


def test_prompts_of_unknown_length_are_counted_where_the_models_tokenizer_is_at_hand(tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN15_32B))
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "tokenizer.json"))
    words = "workload: {prompts: synthetic, kind: words, words: 17, output: {max: 40}}\n"
    (found,) = previewed(tmp_path, words, "concurrency: 2, requests: 20", model="./model")
    assert found.input is not None
    assert (found.input.min, found.input.max, found.bare) == (17, 17, True)
    assert "without the chat template" in render([found])


def test_a_trace_that_loses_lines_says_how_many(tmp_path: Path):
    (tmp_path / "b.csv").write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "0,a,10,5,15,x\n1,a,10,0,10,x\n2,a,90,20,110,x\n"
    )
    (found,) = previewed(
        tmp_path,
        "workload: {prompts: trace, path: b.csv, format: burstgpt, max_model_len: 100, too_long: clip, "
        "output: {exact: trace}}\n",
        "arrival: trace, warmup_s: 0",
    )
    assert (found.requests, found.length_s) == (2, 2.0)
    assert "left out  1 without a reply, 1 cut to length" in render([found])


@pytest.mark.parametrize("profile", [None, "vllm"])
def test_the_shipped_trace_is_previewed(profile: str | None):
    path = Path(__file__).parents[1] / "scenarios" / "traces.yaml"
    (cell,) = expand(load_scenario(path, profile=profile).scenario)
    found = preview(cell, path.parent)
    assert found.requests == 60
    assert found.shared is not None
    assert 0.6 < found.shared.blocks <= found.shared.tokens < 0.8
    assert found.shared.cache_block == (32 if profile else 16)


def test_every_cell_is_previewed_and_a_pattern_chooses_some(tmp_path: Path):
    text = (
        "targets: {a: {endpoint: 'http://127.0.0.1:9', model: m, backend: openai_completions}}\n"
        "workload: {prompts: synthetic, vocab_size: 900, output: {exact: 5}}\n"
        "load: {concurrency: 1, window_s: 1}\nmatrix: {workload.input_tokens: [10, 2000]}\n"
    )
    path = write_scenario(tmp_path, text)
    shown = loadgen(tmp_path, "plan", str(path), "--preview").out
    assert "input_tokens=10\n" in shown
    assert "2,000 tokens each" in shown
    one = loadgen(tmp_path, "plan", str(path), "--preview", "--cell", "input_tokens=10").out
    assert "2,000" not in one


# The plots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_a_preview_fits_its_window_and_its_alphabet(tmp_path: Path, width: int, unicode: bool):
    found = previewed(tmp_path, MIX, "rate_rps: 50, warmup_s: 1, window_s: 20")
    shown = render(found, width, unicode)
    assert max(map(len, shown.splitlines())) <= max(width, 52)
    assert shown.isascii() is not unicode
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_bars_show_every_height_that_is_not_nothing():
    assert bars([0, 1, 1000, 500], 4) == " ▁█▄"
    assert bars([0, 1, 1000, 500], 4, unicode=False) == " .%="
    assert bars([0, 0], 2) == ""
    assert len(bars([1] * 48, 20)) == 20
    assert bars([1, 9, 1, 1], 2) == "█▁"


def test_a_spread_has_no_more_steps_than_lengths():
    found = spread([3, 3, 4, 6])
    assert (found.bins, found.p50, found.mean) == ((2, 1, 0, 1), 3, 4.0)
    assert spread([7]).bins == (1,)
