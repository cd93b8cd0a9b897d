"""The bundle: what a model needs to answer, in three folders with three lifetimes.

``model/`` is what training learnt; ``catalogue/`` the items it answers about (metadata and vectors, refreshed without
training); ``users/`` the histories by pseudonym, which are personal: erasable, never uploaded. Beside them lie
``bundle.json`` and ``train_pairs.safetensors``: hashes of the pairs and users of the fit, so that a later comparison
can tell which test pairs this model never saw, without the pairs. docs/contracts.md (data/bundle/) is the format.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionrec.data.files import fresh_folder, to_json, write_bytes
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.registry.model import (
    LoadedModel,
    arrays_to_bytes,
    bytes_to_arrays,
    ids_sha256,
    load_model,
    save_model,
)
from fusionrec.registry.sealed import (
    FORMAT_VERSION,
    digest_of,
    read_manifest,
    seal,
    sha256_file,
    unseal,
)
from fusionrec.types import Columns, ItemSet

if TYPE_CHECKING:
    import polars as pl

    from fusionrec.recommenders.recommender import Recommender

__all__ = [
    "Bundle",
    "Catalogue",
    "LoadedModel",
    "bundle_digest",
    "load_bundle",
    "load_catalogue",
    "load_model",
    "pair_hashes",
    "read_bundle_json",
    "save_bundle",
    "save_model",
    "user_hashes",
    "verify_bundle",
]

PAIRS = "train_pairs.safetensors"
BUNDLE = "bundle.json"


@dataclass(frozen=True)
class Catalogue:
    """A snapshot of the catalogue: ``items`` in index form, ``table`` the metadata in the same order."""

    items: ItemSet
    table: pl.DataFrame
    fingerprints: Mapping[str, str]
    digest: str


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    ``pairs`` (N,) uint64: sorted hashes of the pairs of the fit (:func:`pair_hashes`); ``users`` (U,) uint64: hashes of
    the users in the order of the model's user rows; ``about``: bundle.json.
    """

    folder: Path
    model: LoadedModel
    catalogue: Catalogue
    pairs: NDArray[np.uint64]
    users: NDArray[np.uint64]
    digest: str
    about: Mapping[str, Any]
    _attached: list[Any] = field(default_factory=list, repr=False, compare=False)

    def recommender(self) -> Recommender:
        """The model attached to its own catalogue snapshot, ready to answer."""
        from fusionrec.recommenders.recommender import Recommender

        if not self._attached:
            self.model.retriever.attach(self.catalogue.items.only(*self.model.modalities))
            self._attached.append(Recommender(retriever=self.model.retriever))
        return self._attached[0]

    def histories(self) -> pl.DataFrame:
        """``user_id`` (pseudonym), ``item_id``, ``timestamp``; IntegrityError where users/ is absent or altered."""
        import polars as pl

        return pl.read_parquet(io.BytesIO(unseal(self.folder / "users", self.about["users"]).read("histories.parquet")))


def pair_hashes(users: Iterable[str], items: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit hashes of (user pseudonym, item id) pairs, in the order given, shape (N,)."""
    return _hashes(f"{user}\x00{item}" for user, item in zip(users, items, strict=True))


def user_hashes(users: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit hash of each pseudonym, in the order given, shape (U,)."""
    return _hashes(users)


def _hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"fusionrec").digest()
        for text in texts
    )
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def bundle_digest(model: str, catalogue: str) -> str:
    """The digest of a bundle: sha256 over the digests of its model and its catalogue."""
    return hashlib.sha256(f"{model}\n{catalogue}".encode()).hexdigest()


def save_bundle(
    folder: Path,
    model: Path,
    *,
    table: pl.DataFrame,
    items: ItemSet,
    fingerprints: Mapping[str, str],
    histories: pl.DataFrame,
    trained: pl.DataFrame,
    users: Iterable[str],
    metrics: Mapping[str, Any],
    temporal: bool = False,
) -> str:
    """Write the bundle of a model folder; returns its digest.

    ``table``: metadata of the items, any order; ``items``: the catalogue with its vectors; ``fingerprints``: modality
    -> encoder fingerprint; ``histories``: what users did, by pseudonym; ``trained``: the pairs that the fit saw
    (``user_id``, ``item_id``); ``users``: pseudonyms in the order of the model's user rows; ``metrics``: the headline.
    ``temporal``: every pair of the test split is later than every pair that the fit saw.
    """
    trained_model = load_model(model)
    pairs = arrays_to_bytes(
        {
            "pairs": np.unique(pair_hashes(trained[Columns.USER], trained[Columns.ITEM])),
            "users": user_hashes(users),
        }
    )

    with fresh_folder(folder) as target:
        shutil.copytree(model, target / "model")
        catalogue = save_catalogue(target / "catalogue", table, items, fingerprints)
        ordered = histories.select(Columns.USER, Columns.ITEM, Columns.TIME).sort(
            Columns.USER, Columns.TIME, Columns.ITEM, nulls_last=True
        )
        people = seal(
            target / "users",
            {"histories.parquet": _parquet(ordered)},
            {"n_users": ordered[Columns.USER].n_unique(), "n_pairs": ordered.height},
        )
        write_bytes(target / PAIRS, pairs)
        about = {
            "format_version": FORMAT_VERSION,
            "model": trained_model.digest,
            "catalogue": catalogue,
            "users": people,
            "bundle": bundle_digest(trained_model.digest, catalogue),
            "metrics": dict(metrics),
            "temporal": temporal,
            "files": {PAIRS: sha256_file(target / PAIRS)},
        }
        write_bytes(target / BUNDLE, to_json({**about, "digest": digest_of(about)}))

    return str(read_bundle_json(folder)["bundle"])


def save_catalogue(folder: Path, table: pl.DataFrame, items: ItemSet, fingerprints: Mapping[str, str]) -> str:
    """Write a catalogue snapshot; returns its digest. Every item of ``items`` must have a row in ``table``."""
    import polars as pl

    order = pl.DataFrame({Columns.ITEM: list(items.ids)}, schema={Columns.ITEM: pl.String})
    ordered = order.join(table.unique(Columns.ITEM, keep="first"), on=Columns.ITEM, how="left", maintain_order="left")
    unknown = order.join(table, on=Columns.ITEM, how="anti")
    if unknown.height:
        raise ValueError(f"{unknown.height} items have no metadata row, e.g. {unknown[Columns.ITEM][0]!r}")
    arrays: dict[str, np.ndarray] = {}
    for name in items.modalities:
        arrays[f"features/{name}"] = np.asarray(items.features[name], np.float32)
        arrays[f"present/{name}"] = np.asarray(items.present[name], bool)
        group = items.group.get(name)
        arrays[f"group/{name}"] = np.zeros(len(items), np.int16) if group is None else np.asarray(group, np.int16)
    return seal(
        folder,
        {"items.parquet": _parquet(ordered), "features.safetensors": arrays_to_bytes(arrays)},
        {
            "n_items": len(items),
            "items_sha256": ids_sha256(items.ids),
            "modalities": {name: {"fingerprint": fingerprints[name]} for name in items.modalities},
        },
    )


def load_catalogue(folder: Path, expected: str | None = None) -> Catalogue:
    """Verify and open a catalogue snapshot. Errors as :func:`fusionrec.registry.model.load_model`."""
    import polars as pl

    sealed = unseal(folder, expected)
    try:
        table = pl.read_parquet(io.BytesIO(sealed.read("items.parquet")))
        arrays = bytes_to_arrays(sealed.read("features.safetensors"))
        ids = tuple(table[Columns.ITEM].to_list())
        names = sorted(sealed.manifest["modalities"])
        items = ItemSet(ids, *({m: arrays[f"{part}/{m}"] for m in names} for part in ("features", "present", "group")))
        prints = {m: str(sealed.manifest["modalities"][m]["fingerprint"]) for m in names}
        agree = ids_sha256(ids) == sealed.manifest["items_sha256"]
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise IntegrityError(f"{folder.name} is not a catalogue snapshot: {error!r}") from None
    if not agree:
        raise IntegrityError(f"{folder.name}/items.parquet does not hold the items that its manifest names")
    return Catalogue(items, table, prints, sealed.digest)


def read_bundle_json(folder: Path) -> dict[str, Any]:
    """bundle.json with its own digest and the joined digest checked."""
    about = read_manifest(folder / BUNDLE)
    if about.get("digest") != digest_of(about) or about.get("bundle") != bundle_digest(
        str(about.get("model")), str(about.get("catalogue"))
    ):
        raise IntegrityError(f"{folder.name}/{BUNDLE} was changed: its digest does not match; the bundle is not loaded")
    return about


def verify_bundle(folder: Path, about: Mapping[str, Any]) -> None:
    """Check what is shared (model, catalogue, hashed pairs) against bundle.json; opens nothing."""
    path = folder / PAIRS
    if not path.is_file() or sha256_file(path) != about["files"].get(PAIRS):
        raise IntegrityError(f"{folder.name}/{PAIRS} does not match its recorded sha256; the bundle is not loaded")
    unseal(folder / "model", about["model"])
    unseal(folder / "catalogue", about["catalogue"])


def load_bundle(folder: Path, expected: str | None = None, *, users: bool = True) -> Bundle:
    """Verify every file of a bundle, then open it.

    ``expected``: the bundle digest recorded elsewhere (the registry); ``users=False`` for a bundle without user state,
    as the registry holds it. Raises IntegrityError naming the file, ConfigError for an unknown format.
    """
    about = read_bundle_json(folder)
    if expected is not None and about["bundle"] != expected:
        raise IntegrityError(
            f"{folder.name} is another bundle than the one recorded (found digest {about['bundle'][:12]}, expected "
            f"{expected[:12]}); it is not loaded"
        )
    allowed = {"model", "catalogue", BUNDLE, PAIRS} | ({"users"} if users else set())
    found = {entry.name for entry in folder.iterdir()}
    if odd := sorted(found ^ allowed):
        state = "does not belong to a bundle" if odd[0] in found else "is missing"
        raise IntegrityError(f"{folder.name}/{odd[0]} {state}; the bundle is not loaded")
    verify_bundle(folder, about)  # every folder is verified before any of them is opened
    if users:
        unseal(folder / "users", about["users"])
    catalogue = load_catalogue(folder / "catalogue", about["catalogue"])
    model = load_model(folder / "model", about["model"])
    if lacking := sorted(set(model.modalities) - set(catalogue.items.modalities)):
        raise ConfigError(f"the model reads {lacking}, the catalogue snapshot of {folder.name} has no such vectors")
    content = (folder / PAIRS).read_bytes()
    if hashlib.sha256(content).hexdigest() != about["files"][PAIRS]:
        raise IntegrityError(f"{folder.name}/{PAIRS} changed while it was being read; it is not loaded")
    hashes = bytes_to_arrays(content)
    return Bundle(folder, model, catalogue, hashes["pairs"], hashes["users"], about["bundle"], about)


def _parquet(table: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    table.write_parquet(out, compression="zstd", statistics=False)
    return out.getvalue()
