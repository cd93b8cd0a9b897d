"""A trained retriever as a folder: ``model.safetensors``, ``fit_ids.json``, ``curve.csv`` and a manifest.

The manifest holds the specs, and the model is rebuilt from them: no class is named, no code is loaded.
docs/contracts.md (data/model/) is the format.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from fusionrec.data.files import to_json
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.registry.sealed import Sealed, seal, unseal

if TYPE_CHECKING:
    from fusionrec.recommenders.base import Retriever

_COUNTERS = ("step", "epoch")
_PLAIN = frozenset("?bBhHiIlLqQefd")  # numpy type codes that safetensors stores as they are


class Fitted(Protocol):
    """A retriever or a ranker after its fit."""

    fit_ids: tuple[str, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt, as named arrays."""


@dataclass(frozen=True)
class LoadedModel:
    """A restored retriever. ``retriever.attach(items.only(*modalities))`` must follow before scoring."""

    retriever: Retriever
    label: str
    modalities: tuple[str, ...]
    manifest: Mapping[str, Any]
    digest: str


def save_model(
    folder: Path,
    retriever: Retriever,
    *,
    spec: Mapping[str, Any],
    label: str,
    modalities: Mapping[str, Mapping[str, Any]],
    seed: int,
    train_end: str | datetime | None,
    curve: Sequence[Mapping[str, float]] = (),
) -> str:
    """Write a fitted retriever to ``folder`` (replacing it as a whole); returns its digest.

    ``spec``: the train section as JSON; ``spec["retriever"]`` and, if the model fuses, ``spec["fusion"]`` rebuild it.
    ``modalities``: name -> {"encoder": spec as JSON, "fingerprint"} of those the model was given. ``train_end``: latest
    training timestamp (ISO text or a datetime), None without timestamps. ``curve``: one mapping an epoch, e.g.
    ``{"epoch": 0, "loss": 0.6, "valid_ndcg@20": 0.1}``.
    """
    manifest = {
        "kind": spec["retriever"]["kind"],
        "spec": dict(spec),
        "label": label,
        "modalities": {name: dict(value) for name, value in modalities.items()},
        "train_end": train_end.isoformat() if isinstance(train_end, datetime) else train_end,
        "seed": seed,
    }
    return seal_fitted(folder, retriever, manifest, curve)


def seal_fitted(
    folder: Path, fitted: Fitted, manifest: Mapping[str, Any], curve: Sequence[Mapping[str, float]] = ()
) -> str:
    """Write what a retriever or a ranker has learnt to ``folder`` beside ``manifest``; returns the digest.

    Raises ValueError for arrays that safetensors would not store as they are."""
    arrays = {name: np.asarray(array, order="C") for name, array in fitted.arrays().items()}
    odd = [f"{name} ({array.dtype})" for name, array in arrays.items() if array.dtype.char not in _PLAIN]
    if odd:
        raise ValueError(f"{type(fitted).__name__}.arrays() must hold plain dtypes, found {', '.join(odd)}")
    ids = list(fitted.fit_ids)
    files = {
        "model.safetensors": arrays_to_bytes(arrays),
        "fit_ids.json": to_json(ids),
        "curve.csv": _curve_csv(curve),
    }
    return seal(folder, files, {**manifest, "fit_ids_sha256": ids_sha256(ids), "arrays": _shapes(arrays)})


def load_model(folder: Path, expected: str | None = None) -> LoadedModel:
    """Verify a model folder and restore its retriever (not attached to a catalogue yet).

    ``expected``: the digest recorded elsewhere, where there is one. Raises IntegrityError naming the file that does not
    match (nothing is opened then), ConfigError for a format or a retriever kind that this version does not know.
    """
    sealed = unseal(folder, expected)
    manifest = sealed.manifest
    with about_manifest(folder):
        label, modalities = str(manifest["label"]), tuple(sorted(manifest["modalities"]))
        retriever = build_retriever(manifest["spec"])
        retriever.restore(*read_fitted(sealed))
    return LoadedModel(retriever, label, modalities, manifest, sealed.digest)


@contextmanager
def about_manifest(folder: Path) -> Iterator[None]:
    """What a manifest lacks, as an IntegrityError that names it."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"{folder.name}/manifest.json is not a model's manifest: {error!r}") from None


def read_fitted(sealed: Sealed) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays and the item ids of the fit, as :func:`seal_fitted` wrote them. Raises IntegrityError where they are
    not what the manifest says, KeyError where it says nothing."""
    shapes = sealed.manifest["arrays"]
    arrays = bytes_to_arrays(sealed.read("model.safetensors"))
    ids = _read_ids(sealed, sealed.manifest["fit_ids_sha256"])
    if _shapes(arrays) != shapes:
        raise IntegrityError(f"{sealed.folder.name}/model.safetensors: arrays {_shapes(arrays)}, expected {shapes}")
    return arrays, ids


def build_retriever(spec: Mapping[str, Any]) -> Retriever:
    """An unfitted retriever from a train section as JSON; the fusion is injected."""
    from fusionrec import recommenders  # the union: read when needed, so that a new line there is enough

    retriever: Retriever = built(spec, "retriever", recommenders.AnyRetriever)
    return retriever


def built(spec: Mapping[str, Any], name: str, registered: Any) -> Any:
    """What the section ``name`` of ``spec`` (one of the kinds of the union ``registered``) describes, unfitted, with
    the fusion of ``spec`` injected. Raises ConfigError for a kind or a value that this version does not know."""
    from fusionrec import fusion

    fused = spec.get("fusion")
    fusion_spec = None if fused is None else section("fusion", fused, fusion.AnyFusion)
    return section(name, spec[name], registered).build(fusion=fusion_spec)


def section(name: str, found: Any, registered: Any) -> Any:
    """A section as JSON -> its spec, one of the kinds of the union ``registered``. Errors as of :func:`built`."""
    try:
        return TypeAdapter(registered).validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"the bundle's model cannot be rebuilt: {'.'.join(map(str, first['loc'])) or name}: {first['msg']}; "
            "install the fusionrec that wrote the bundle"
        ) from None


def ids_sha256(ids: Sequence[str]) -> str:
    """sha256 of the newline-joined ids."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()


def arrays_to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """safetensors bytes; the same arrays give the same bytes whatever the order of the mapping."""
    from safetensors.numpy import save

    return save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def bytes_to_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The inverse of :func:`arrays_to_bytes`; IntegrityError where it is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except SafetensorError as error:
        raise IntegrityError(f"not a safetensors file: {error}") from None


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}


def _read_ids(sealed: Sealed, expected: str) -> tuple[str, ...]:
    ids = json.loads(sealed.read("fit_ids.json").decode("utf-8", "surrogatepass"))
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids) or ids_sha256(ids) != expected:
        raise IntegrityError(f"{sealed.folder.name}/fit_ids.json does not match fit_ids_sha256 of the manifest")
    return tuple(ids)


def _curve_csv(curve: Sequence[Mapping[str, float]]) -> bytes:
    """The counters first, then the other columns by name; a header alone for a model without epochs."""
    seen = {name for row in curve for name in row}
    names = [c for c in _COUNTERS if c in seen] + sorted(seen - set(_COUNTERS)) if curve else ["epoch", "loss"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: int(v) if k in _COUNTERS else repr(float(v)) for k, v in row.items()} for row in curve)
    return text.getvalue().encode("utf-8")
