"""Runs that are kept: a run's folder becomes a small archive, and an archive a report again."""

from __future__ import annotations

import io
import json
import lzma
import re
import tarfile
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.assemble import RunReport, assemble
from loadgen.errors import StoreError, UsageError
from loadgen.store import Run

LEFT_OUT = ("server.log", "latency.hlog", "report.json", "report.md", "report.html")
"""What is not kept: logs, which are long and full of the machine's own paths, and what can be made again."""


@dataclass(frozen=True)
class Kept:
    """A run as it is kept. ``name`` is the archive's, else the profile's; it is safe in a file name. ``hosts`` are the
    machines that its requests were sent from."""

    name: str
    report: RunReport
    hosts: tuple[str, ...]


def opened(path: Path, stack: ExitStack) -> Kept:
    """The run in a folder or an archive. Raises UsageError where there is none, StoreError for a broken one."""
    folder = path
    if path.is_file():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise StoreError(f"{path} cannot be unpacked: {error}") from error
    elif not path.is_dir():
        raise UsageError(f"{path}: there is no such run; name a run's folder, or an archive of one.")
    found = [folder] if (folder / "run.json").is_file() else [file.parent for file in folder.rglob("run.json")]
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} runs; one is wanted: a folder with a run.json.")
    files = found[0].glob("cells/*/*/rep-*/attempt-*/requests-*")
    hosts = {file.name.removeprefix("requests-").rpartition("-w")[0] for file in files}
    report = assemble(Run(found[0]))
    name = report.run.get("profile") or report.run["scenario"]["name"]
    if path.is_file():
        name = path.name.removesuffix(".tar.xz").removeprefix("moe-vs-dense-")
    return Kept(re.sub(r"[^\w-]", "_", name), report, tuple(sorted(hosts)))


def keep(folder: Path, archive: Path, chunks: bool = True) -> Path:
    """Packs a run's folder, without what is not kept and without the paths of the machine that it ran on. The same
    folder gives the same bytes. Without ``chunks`` the request lines lack the arrival of every chunk, which is nine
    tenths of a long run; what was made of them is in the summaries, and stays. Raises UsageError where there is no
    run."""
    if not (folder / "run.json").is_file():
        raise UsageError(f"{folder} is no run's folder: it has no run.json; they stand in STORE/runs/<day>/.")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(archive, "w", preset=9) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.name not in LEFT_OUT:
                _add(tar, path, f"{folder.name}/{path.relative_to(folder)}", chunks)
    return archive


def _add(tar: tarfile.TarFile, path: Path, name: str, chunks: bool) -> None:
    """One file, without owner and time, which say nothing of the run."""
    data = path.read_bytes()
    if not chunks and path.name.startswith("requests-"):
        lines = (json.loads(line) for line in data.splitlines())
        data = b"".join(json.dumps({**line, "chunk_us": []}).encode() + b"\n" for line in lines)
    if path.name in ("run.json", "server.json"):
        data = json.dumps(without_places(json.loads(data)), indent=1, ensure_ascii=False).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def without_places(value: Any) -> Any:
    """A JSON value in which absolute paths are their last part alone: where a model stood is nobody's business."""
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"(/[^/\s]+){2,}/?", value):
        return value.rstrip("/").rpartition("/")[2]
    return value
