"""Results of other load generators become runs of the store: they can be reported, and compared with ours.

In: the files that ``vllm bench serve``, GuideLLM and AIPerf write. Out: a run folder like any other (`keep`), with
request lines where the tool kept single requests. An imported figure is never presented as ours: run.json names its
origin, and every repeat carries doubts that say where the tool's definitions differ (docs/importing.md).

`read` finds out by its fields whose result a file is; one module a tool knows the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.errors import UsageError

if TYPE_CHECKING:
    from loadgen.importing.measured import Measured

KNOWN = (
    "the JSON of `vllm bench serve --save-result`, GuideLLM's benchmarks.json or .yaml, and AIPerf's output folder "
    "(profile_export_aiperf.json with profile_export.jsonl)"
)
"""What can be imported, for sentences."""


def read(path: Path) -> list[Measured]:
    """Every repeat that a file or folder holds. Raises UsageError for what cannot be read or is of no known tool."""
    from loadgen.importing import aiperf, guidellm, vllm_bench
    from loadgen.importing.fields import parse, parse_yaml, read_bytes

    if not path.exists():
        raise UsageError(f"there is no {path}; loadgen import reads {KNOWN}.")
    files = aiperf.files_of(path)
    if files is not None:
        return [aiperf.read(*files)]
    if path.is_dir():
        raise UsageError(f"{path} holds no file *{aiperf.AGGREGATE}; loadgen import reads {KNOWN}.")
    if path.suffix.lower() in (".yaml", ".yml"):
        fields = parse_yaml(path)
    else:
        data = read_bytes(path)
        first = data.lstrip().split(b"\n", 1)[0] if data.count(b"\n{") else data
        fields = parse(first, str(path))
        if vllm_bench.is_result(fields):
            return vllm_bench.read(data, str(path))
    if guidellm.is_result(fields):
        return guidellm.read(fields)
    seen = ", ".join(sorted(fields)[:8]) or "nothing"
    raise UsageError(f"{path} is of no tool that is known here (its fields: {seen}); loadgen import reads {KNOWN}.")
