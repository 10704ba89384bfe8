"""Where a target is and how it is asked, and from that what each worker of a repeat is told.

In: a `Site` and a step of the plan. Out: one `Job` for each worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from loadgen.drive.job import How, Job, Labels, Shape
from loadgen.plan import Step
from loadgen.scenario import Cell
from loadgen.store import requests_path
from loadgen.summary import Doubt
from loadgen.telemetry.sampler import Machine


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where a target is now, and how it is asked. ``headers`` may hold a key and is never written anywhere, nor is what
    stands in ``hidden``.

    ``urls`` are all endpoints where there are several, ``url`` the first, and ``balance`` is how requests are dealt to
    them. ``model_path`` is the model's local folder, None if there is none; ``metrics`` are the URLs of the engines'
    Prometheus pages and ``names`` their metrics by our words; ``doubts`` what is known to weaken every number of this
    target; ``machine`` is where telemetry finds it.
    """

    url: str
    urls: tuple[str, ...] = ()
    balance: How = "round_robin"
    backend: str
    options: Any
    headers: dict[str, str]
    proxy: str | None = None
    model_path: str | None = None
    tokenizer: str | None = None
    metrics: tuple[str, ...] = ()
    names: dict[str, str] = {}
    doubts: tuple[Doubt, ...] = ()
    folder: str = "."
    hidden: tuple[str, ...] = ()
    machine: Machine = Machine()


def make_jobs(
    cell: Cell, site: Site, step: Step, place: tuple[str, Path, int], shape: Shape, workers: int
) -> list[Job]:
    """One job for each worker."""
    run_id, folder, attempt = place
    labels = Labels(
        run=run_id,
        cell=cell.id,
        target=step.target,
        rep=step.rep,
        attempt=attempt,
        server=step.server,
        endpoint=site.url,
    )
    workload = cell.scenario.workload
    context = {
        "seed": step.seed,
        "folder": site.folder,
        "template": workload.template,
        "model_path": site.model_path,
        **workload.output.asked,
    }
    return [
        Job(
            labels=labels,
            worker=index,
            workers=workers,
            endpoint=site.url,
            endpoints=site.urls,
            balance=site.balance,
            backend=site.backend,
            options=site.options,
            headers=site.headers,
            proxy=site.proxy,
            workload=workload.prompts,
            settings=workload.settings,
            context=context,
            shape=shape,
            seed=step.seed,
            out=str(requests_path(folder, index)),
            driver=cell.scenario.load.driver,
            save_text=workload.save_text,
            hidden=site.hidden,
            tokenizer=site.tokenizer,
        )
        for index in range(workers)
    ]
