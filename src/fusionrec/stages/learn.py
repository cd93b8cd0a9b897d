"""Learn: encoders that have weights to learn do so on the training split, before anything is embedded. Reads no test.

What an encoder learns depends on the items that train and valid name and on nothing else of the catalogue. The weights
are remembered in .fusionrec/learnt under a digest of exactly that: an item that is new, or a change elsewhere, makes
this stage run and learn nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.config import Params
from fusionrec.data.files import fresh_folder, to_json
from fusionrec.encoders.learnt import LearntEncoderSpec
from fusionrec.encoders.remembered import remember
from fusionrec.errors import ConfigError, DataRejected, IntegrityError
from fusionrec.paths import Paths
from fusionrec.registry.sealed import seal, unseal
from fusionrec.stages.progress import counted, epochs
from fusionrec.types import Columns, Interactions, Report

CHUNK = 64  # inputs that are prepared at once
VERSION = 1  # of what is made of the same inputs: the objective, the draws


def run(params: Params, paths: Paths) -> Report:
    """Writes data/encoders/, a folder for each modality; see docs/contracts.md.

    Raises DataRejected where there is nothing to learn from and ConfigError where a training diverged.
    """
    report = Report("learn")
    with fresh_folder(paths.encoders) as folder:
        for name, spec in sorted(params.modalities.items()):
            if spec.encoder.learnt:
                start = time.monotonic()
                report.table.append({"modality": name, **_one(params, paths, name, folder / name)})
                report.seconds[name] = time.monotonic() - start
            else:
                seal(folder / name, {}, {"modality": name, "learnt": False})
        (folder / ".gitkeep").touch()
    report.counts = {
        "modalities": len(params.modalities),
        "learnt": len(report.table),
        "reused": sum(row["reused"] == "yes" for row in report.table),
    }
    if not report.table:
        report.notes.append("every encoder is a frozen one: nothing to learn")
    return report


@dataclass(frozen=True)
class _Inputs:
    """The I items that train and valid name, in canonical order, and what was chosen of them."""

    source: Any
    contents: list[str]
    train: Interactions
    valid: Interactions

    def key(self, spec: LearntEncoderSpec) -> str:
        """Hex sha256 of everything that what is learnt depends on."""
        digest = hashlib.sha256(
            to_json({"version": VERSION, "encoder": spec.model_dump(mode="json"), "facts": dict(spec.facts())})
        )
        digest.update("\n".join(self.contents).encode())
        for part in (self.train, self.valid):
            digest.update(np.stack([part.user, part.item]).astype("<i8").tobytes() + b"|")
        return digest.hexdigest()


def _one(params: Params, paths: Paths, name: str, target: Path) -> dict[str, Any]:
    """Learn one modality's encoder, or take what was learnt from the same before; -> a row of the report."""
    spec = params.modalities[name].encoder
    inputs = _inputs(params, paths, name)
    key = inputs.key(spec)
    kept = paths.home / "learnt" / key
    reused = _sound(kept)
    if reused:
        shutil.copytree(kept, target)
    else:
        shutil.rmtree(kept, ignore_errors=True)
        _learn(paths, name, spec, inputs, key, target)
        remember(target.parent, kept.parent)
    about = unseal(target).manifest
    return {
        "encoder": spec.kind,
        "items": about["n_items"],
        "epochs": about["epochs"],
        f"untrained valid {spec.learning.metric}": round(about["before"], 4),
        f"valid {spec.learning.metric}": round(about["best"], 4),
        "reused": "yes" if reused else "no",
    }


def _sound(folder: Path) -> bool:
    try:
        return unseal(folder).manifest["key"] == folder.name
    except (IntegrityError, ConfigError, KeyError):
        return False


def _inputs(params: Params, paths: Paths, name: str) -> _Inputs:
    from fusionrec.data import split, tables

    data = split.load(paths, ("train", "valid"))
    rows = np.union1d(data.train.item, data.valid.item)
    ids = [data.items[r] for r in rows]
    items = tables.accepted(paths, "items")
    at = {item: number for number, item in enumerate(items[Columns.ITEM].to_list())}
    lacking = [i for i in ids if i not in at]
    if lacking:
        raise DataRejected(f"data/splits names {len(lacking)} items that data/tables lacks: run the stage split again")
    source = params.modalities[name].build()
    seen = source.rows(items[[at[i] for i in ids]], params.source.media_root(paths.project))
    contents = [c if p else "" for c, p in zip(seen.content, seen.present.tolist(), strict=True)]
    return _Inputs(source, contents, _of(data.train, rows), _of(data.valid, rows))


def _of(part: Interactions, rows: np.ndarray) -> Interactions:
    """The same choices among the items ``rows`` alone, in order of user and item: when they fell does not matter."""
    order = np.lexsort((part.item, part.user))
    item = np.searchsorted(rows, part.item[order]).astype(np.int32)
    return Interactions(part.user[order], item, None, part.n_users, len(rows))


def _learn(paths: Paths, name: str, spec: LearntEncoderSpec, inputs: _Inputs, key: str, target: Path) -> None:
    """Train, and seal the weights in ``target``."""
    from fusionrec.recommenders.checkpoints import resumable
    from fusionrec.recommenders.learning import learn
    from fusionrec.registry.model import arrays_to_bytes

    trainee = spec.start()
    checkpoints = paths.home / "checkpoints" / key[:16]
    try:
        prepared = _prepared(name, trainee, inputs)
        with resumable(checkpoints), epochs(f"learning {name}") as show:
            done = learn(trainee, prepared, inputs.train, inputs.valid, spec.learning, show)
    except ValueError as error:
        kind = ConfigError if "loss is" in str(error) else DataRejected
        raise kind(f"modality {name}: {error}") from error
    state = {k: v.detach().cpu().numpy() for k, v in trainee.module.state_dict().items()}
    manifest = {
        "modality": name,
        "learnt": True,
        "kind": spec.kind,
        "encoder": spec.model_dump(mode="json"),
        "key": key,
        "dim": trainee.dim,
        "n_items": sum(p is not None for p in prepared),
        "epochs": len(done.curve),
        "before": done.before,
        "best": done.best,
        "curve": done.curve,
    }
    seal(target, {"weights.safetensors": arrays_to_bytes(state)}, manifest)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _prepared(name: str, trainee: Any, inputs: _Inputs) -> list[np.ndarray | None]:
    """What the encoder's front makes of each item; None where the item lacks the modality or cannot be read."""
    from fusionrec.embeddings.shards import loaded, next_part

    first: dict[str, int] = {}
    for row, content in enumerate(inputs.contents):
        if content:
            first.setdefault(content, row)
    made: dict[str, np.ndarray] = {}
    unread: dict[str, tuple[str, str]] = {}
    with counted(f"read {name}") as progress, closing(loaded(inputs.source, list(first.items()))) as stream:
        done = 0
        while part := next_part(stream, CHUNK, unread):
            arrays = trainee.prepare([value for _, value in part])
            for (content, _), array in zip(part, arrays, strict=True):
                if np.isfinite(array).all():  # else it has no vector in the stage embed either
                    made[content] = array
            done += len(part)
            progress(done + len(unread), len(first))
    return [made.get(content) for content in inputs.contents]
