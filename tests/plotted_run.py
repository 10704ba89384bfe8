"""A run with its request lines, made up by scripts/make-big-run, that charts are made of."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import make_big_run

from loadgen.assemble import RunReport, assemble
from loadgen.scenario import Scenario, load
from loadgen.store import Run

SIZES = make_big_run.SIZES
TOKENS = 12


def plotted_run(store: Path) -> RunReport:
    """Ten concurrencies, two targets, three repeats of 60 requests of 12 tokens."""
    args = argparse.Namespace(store=store, cells=10, records=3600, tokens=TOKENS, repeats=3)
    return assemble(Run(make_big_run.make(args)))


def grid_scenario(folder: Path, sizes: int, lengths: int) -> Scenario:
    """Targets a and b at so many concurrencies and prompt lengths."""
    path = folder / "grid.yaml"
    path.write_text(
        "schema: loadgen/v1\nname: grid\n"
        "targets: {a: {endpoint: 'http://127.0.0.1:9', model: m}, b: {endpoint: 'http://127.0.0.1:8', model: m}}\n"
        "workload: {prompts: synthetic, input_tokens: 1, output: {exact: 8}}\nload: {warmup_s: 1, window_s: 30}\n"
        f"matrix: {{load.concurrency: {list(range(1, sizes + 1))}, workload.input_tokens: "
        f"{list(range(1, lengths + 1))}}}\nrepeats: 3\ncomparison: {{baseline: a}}\nobjectives: [output_tok_s > 50]\n"
    )
    return load(path).scenario
