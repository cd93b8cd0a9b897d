"""What one registration records in its run: parameters, metrics, datasets with digests, files, the training curve."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Dataset:
    """A file that the model was made from or measured on; ``digest`` is DVC's md5 where there is one, else sha256."""

    name: str
    context: str
    path: str
    digest: str
    kind: str
    rows: int


@dataclass(frozen=True)
class Entry:
    """Everything that one registration records."""

    bundle: Path
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    datasets: Sequence[Dataset] = ()
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    example: str = ""


def log_run(client: Any, run_id: str, entry: Entry) -> None:
    """Write an entry to a run that exists. ``client``: an open MlflowClient."""
    _log_numbers(client, run_id, entry)
    _log_datasets(client, run_id, entry.datasets)
    for target, path in entry.artifacts.items():
        if path.is_dir():
            client.log_artifacts(run_id, str(path), target)
        elif path.is_file():
            client.log_artifact(run_id, str(path), target or None)
    for target, text in entry.texts.items():
        client.log_text(run_id, text, target)


def _log_numbers(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Metric, Param

    now = int(client.get_run(run_id).info.start_time)
    params = [Param(key[:250], str(value)[:6000]) for key, value in flatten(entry.params)]
    metrics = [Metric(key, value, now, 0) for key, value in safe_metrics(entry.metrics).items()]
    for row in entry.curve:
        step = int(row.get("step", row.get("epoch", 0)))
        metrics += [
            Metric(f"curve/{safe_name(k)}", float(v), now, step)
            for k, v in row.items()
            if k not in ("step", "epoch") and isfinite(float(v))
        ]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def _log_datasets(client: Any, run_id: str, datasets: Sequence[Dataset]) -> None:
    from mlflow.entities import Dataset as Logged
    from mlflow.entities import DatasetInput, InputTag

    client.log_inputs(
        run_id,
        [
            DatasetInput(
                Logged(
                    name=d.name,
                    digest=d.digest[:36],
                    source_type="local",
                    source=json.dumps({"uri": d.path}),
                    profile=json.dumps({"num_rows": d.rows}),
                ),
                [InputTag("mlflow.data.context", d.context), InputTag(f"digest.{d.kind}", d.digest)],
            )
            for d in datasets
        ],
    )


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings and lists as dotted keys; an empty one is kept as its text."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    if not items and prefix:
        yield prefix, value
    for key, inner in items:
        yield from flatten(inner, f"{prefix}.{safe_name(str(key))}" if prefix else safe_name(str(key)))


def safe_name(name: str) -> str:
    """A name that MLflow takes: ``ndcg@20`` -> ``ndcg_at_20``; anything else outside [A-Za-z0-9_-.] becomes _."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name.replace("@", "_at_")).strip(".")[:80] or "_"


def safe_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Nested metrics as ``model/slice/metric``; what is no finite number is left out, equal names are told apart."""
    out: dict[str, float] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, (*path, str(key)))
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            key = "/".join(safe_name(part) for part in path)
            if key in out:
                key += "_" + sha256("\0".join(path).encode("utf-8", "surrogatepass")).hexdigest()[:6]
            out[key] = float(value)

    walk(metrics, ())
    return out


def git_commit(project: Path) -> str:
    """The commit of the project, "unknown" outside git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607  (whichever git the user has)
            cwd=project,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,  # noqa: S607
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
