"""The catalogue snapshot of a bundle: metadata and vectors of the items it answers about, refreshed on its own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusionrec.errors import IntegrityError
from fusionrec.registry.model import arrays_to_bytes, bytes_to_arrays, ids_sha256
from fusionrec.registry.sealed import seal, unseal
from fusionrec.types import Columns, ItemSet

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Catalogue:
    """A snapshot of the catalogue: ``items`` in index form, ``table`` the metadata in the same order."""

    items: ItemSet
    table: pl.DataFrame
    fingerprints: Mapping[str, str]
    digest: str


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
        {"items.parquet": parquet(ordered), "features.safetensors": arrays_to_bytes(arrays)},
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


def parquet(table: pl.DataFrame) -> bytes:
    """The same table gives the same bytes."""
    out = io.BytesIO()
    table.write_parquet(out, compression="zstd", statistics=False)
    return out.getvalue()
