"""The manifests of ``deploy/``: what Kubernetes takes, and what their own numbers and commands must agree on.

Kubernetes' kinds and every pod template are held against the schemas that the package kubernetes-validate carries, and
nothing may stand in them that these do not know. Of KubeRay's kinds no package carries the schemas; of those the fields
are listed here (KubeRay's API reference, ray.io/v1), and the pod templates inside them are checked like all others.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

DEPLOY = Path(__file__).parents[1] / "deploy"
RAY_KINDS = {
    "RayCluster": {"spec": "cluster"},
    "RayJob": {"spec": "job"},
}
FIELDS: dict[str, dict[str, Any]] = {
    "cluster": {"rayVersion": str, "authOptions": "auth", "headGroupSpec": "head", "workerGroupSpecs": ["group"]},
    "auth": {"mode": str},
    "head": {"serviceType": str, "rayStartParams": "params", "template": "pods"},
    "group": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "rayStartParams": "params",
        "template": "pods",
    },
    "job": {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": "cluster",
    },
}
NEEDED = {"cluster": {"headGroupSpec"}, "head": {"rayStartParams", "template"}, "group": {"groupName", "template"}}
VERSIONS = ("1.30.0", "1.37.0")


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in YAML(typ="safe").load_all(path.read_text()) if one]


ALL = {f"{path.name}-{one['kind']}": one for path in sorted(DEPLOY.glob("*.yaml")) for one in documents(path)}


def wrong(value: Any, form: Any, where: str) -> Iterator[str]:
    """What is not as KubeRay's reference has it, with its path."""
    if form == "pods":
        yield from (f"{where}: {text}" for version in VERSIONS for text in refused(value, version))
    elif form == "params":
        yield from (f"{where}.{key}: is no text" for key, one in value.items() if not isinstance(one, str))
    elif isinstance(form, list):
        for number, one in enumerate(value):
            yield from wrong(one, form[0], f"{where}[{number}]")
    elif isinstance(form, str):
        yield from (f"{where}.{key}: missing" for key in NEEDED.get(form, set()) - value.keys())
        for key, one in value.items():
            if key in FIELDS[form]:
                yield from wrong(one, FIELDS[form][key], f"{where}.{key}")
            else:
                yield f"{where}.{key}: unknown"
    elif type(value) is not form:
        yield f"{where}: {value!r} is no {form.__name__}"


def refused(template: dict[str, Any], version: str) -> list[str]:
    pods = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    try:
        kubernetes_validate.validate(pods, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def test_there_is_a_manifest_for_each_way() -> None:
    kinds = {one["kind"] for one in ALL.values()}
    assert kinds == {"RayCluster", "RayJob", "Job", "PersistentVolumeClaim"}


@pytest.mark.parametrize(
    "one", [one for one in ALL.values() if one["kind"] not in RAY_KINDS], ids=lambda one: one["kind"]
)
def test_what_is_kubernetes_own_is_as_its_schemas_have_it(one: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("one", [one for one in ALL.values() if one["kind"] in RAY_KINDS], ids=lambda one: one["kind"])
def test_what_is_kuberays_has_known_fields_and_good_pods(one: dict[str, Any]) -> None:
    assert one["apiVersion"] == "ray.io/v1"
    assert list(wrong(one["spec"], RAY_KINDS[one["kind"]]["spec"], "spec")) == []


def test_a_field_that_nobody_knows_is_found_at_any_depth() -> None:
    cluster = documents(DEPLOY / "kuberay-cluster.yaml")[0]["spec"]
    cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "x"
    cluster["headGroupSpec"]["replicas"] = 1
    cluster["workerGroupSpecs"][0]["rayStartParams"]["num-cpus"] = 1
    found = "\n".join(wrong(cluster, "cluster", "spec"))
    assert "imagee" in found
    assert "spec.headGroupSpec.replicas: unknown" in found
    assert "spec.workerGroupSpecs[0].rayStartParams.num-cpus: is no text" in found


def clusters() -> list[dict[str, Any]]:
    return [one["spec"] if one["kind"] == "RayCluster" else one["spec"]["rayClusterSpec"] for one in ray_kinds()]


def ray_kinds() -> list[dict[str, Any]]:
    return [one for one in ALL.values() if one["kind"] in RAY_KINDS]


def test_ray_asks_for_a_token_tells_nobody_and_has_one_version() -> None:
    (base,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-py311$", (DEPLOY / "Dockerfile").read_text(), re.M)
    for cluster in clusters():
        assert cluster["rayVersion"] == base
        assert cluster["authOptions"] == {"mode": "token"}
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert group["rayStartParams"]["disable-usage-stats"] == "true"
    assert clusters()[0]["headGroupSpec"]["rayStartParams"]["include-dashboard"] == "false"


def test_numbers_that_mean_the_same_are_the_same() -> None:
    words = commands()
    for name, cluster in zip(("kuberay-cluster.yaml", "kuberay-job.yaml"), clusters(), strict=True):
        (group,) = cluster["workerGroupSpecs"]
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        assert f"--workers {group['replicas']}" in words[name]
    job = ALL["indexed-job.yaml-Job"]["spec"]
    assert job["completions"] == job["parallelism"]
    assert f'--shard "$JOB_COMPLETION_INDEX/{job["completions"]}"' in words["indexed-job.yaml"]
    text = "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))
    assert len(set(re.findall(r"image: (\S+)", text))) == 1


def commands() -> dict[str, str]:
    """The loadgen command of each manifest that has one."""
    found = {
        path.name: re.findall(r"(?:exec |entrypoint: )(loadgen .*)", path.read_text()) for path in DEPLOY.iterdir()
    }
    return {name: one for name, (one,) in ((name, lines) for name, lines in found.items() if lines)}


def test_every_command_is_one_that_loadgen_knows() -> None:
    helped = subprocess.run(
        [sys.executable, "-m", "loadgen", "run", "--help"], capture_output=True, text=True, check=True
    )
    known = set(re.findall(r"--[a-z-]+", helped.stdout))
    assert commands().keys() == {"kuberay-cluster.yaml", "kuberay-job.yaml", "indexed-job.yaml"}
    for line in commands().values():
        assert line.startswith("loadgen run /scenario/scenario.yaml ")
        assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_every_volume_that_is_mounted_is_there() -> None:
    for one in ALL.values():
        for spec in pod_specs(one):
            volumes = {volume["name"] for volume in spec.get("volumes", ())}
            mounted = {mount["name"] for box in spec["containers"] for mount in box.get("volumeMounts", ())}
            assert mounted == volumes


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Every specification of a pod, at any depth."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for one in value.values():
            yield from pod_specs(one)
    elif isinstance(value, list):
        for one in value:
            yield from pod_specs(one)
