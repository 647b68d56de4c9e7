"""The Kubernetes files: built by kustomize, held to the schemas of several versions and of the operators' objects."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as monitoring

from deploy.checks.rules import WRITTEN, rules
from deploy.checks.running import DEPLOY, CheckFailed, go_programs, run, say, tool

_VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
_FOLDER = DEPLOY / "kubernetes"
_CUSTOM: dict[str, Any] = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "ServiceMonitor": monitoring.ServiceMonitor,
    "PrometheusRule": monitoring.PrometheusRule,
}
# The longest stop of a worker while Redis hangs, beyond its shutdown timeout, in seconds (docs/operations.md).
_HANGING = 8
_DRAIN = 30


def check_kubernetes() -> None:
    """Build and validate each overlay. Raises CheckFailed."""
    kustomize = go_programs() / "kustomize"
    folders = [*sorted((_FOLDER / "overlays").iterdir()), _FOLDER / "monitoring"]
    count = 0
    for folder in folders:
        objects = [each for each in yaml.safe_load_all(run(kustomize, "build", folder)) if each]
        count += len(objects)
        for each in objects:
            try:
                _validate(each)
            except Exception as error:
                raise CheckFailed(f"kubernetes: {folder.name}, {each['kind']}: {error}") from error
        _check_drain(folder.name, objects)
        _check_file(objects)
    if WRITTEN.read_text() != rules():
        raise CheckFailed("kubernetes: monitoring/rules.yaml differs from deploy/prometheus/alerts.yml; run: make lock")
    say(f"kubernetes: {count} objects of {len(folders)} builds, valid for {_VERSIONS[0]} to {_VERSIONS[-1]}")


def _validate(document: dict[str, Any]) -> None:
    """Validate an object. Its schema is that of each version, or the model of its operator."""
    if (model := _CUSTOM.get(document["kind"])) is None:
        for version in _VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
        return
    # The models ignore unknown fields, so these are missing afterwards.
    read = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    if unknown := _missing(document, read, document["kind"]):
        raise CheckFailed(f"unknown fields: {', '.join(unknown)}")


def _missing(written: Any, read: Any, path: str) -> list[str]:
    if isinstance(written, dict):
        return [
            found
            for key, value in written.items()
            for found in (_missing(value, read[key], f"{path}.{key}") if key in read else [f"{path}.{key}"])
        ]
    if isinstance(written, list):
        return [
            found
            for place, pair in enumerate(zip(written, read, strict=True))
            for found in _missing(*pair, f"{path}[{place}]")
        ]
    return []


def _check_drain(name: str, objects: list[dict[str, Any]]) -> None:
    """Check that a pod has the time to stop, preStop included, and that its probes have a port."""
    for each in objects:
        if each["kind"] != "Deployment":
            continue
        pod = each["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])
        waits = 5 if "sleep(5)" in command[-1] else 0
        if pod["terminationGracePeriodSeconds"] < waits + _DRAIN + _HANGING:
            raise CheckFailed(f"kubernetes: {name}: the grace period is shorter than the drain")
        ports = {port["name"] for port in container["ports"]}
        if any(
            container[f"{probe}Probe"]["httpGet"]["port"] not in ports for probe in ("liveness", "readiness", "startup")
        ):
            raise CheckFailed(f"kubernetes: {name}: a probe asks a port that the container has not")


def _check_file(objects: list[dict[str, Any]]) -> None:
    """Check the files of parts in ConfigMaps, as `redis-worker serve` would read them."""
    for each in objects:
        for name, text in each.get("data", {}).items() if each["kind"] == "ConfigMap" else ():
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, name).write_text(text)
                run(tool("redis-worker"), "check", name, cwd=Path(folder), env={"REDIS_URL": "redis://redis:6379/0"})
