"""The files of data/embeddings/<modality>/ (docs/contracts.md): written, loaded and checked here only."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.data.files import to_json, write_bytes
from fusionrec.data.schema import printable
from fusionrec.embeddings.engine import Embedded
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import EncoderSpec
from fusionrec.encoders.weights import sha256_file
from fusionrec.errors import IntegrityError
from fusionrec.modalities.base import ModalityRows
from fusionrec.paths import Paths
from fusionrec.types import ItemSet

FILES = ("vectors.npy", "present.npy", "group.npy", "content.npy", "failed.parquet")


def items_digest(ids: Iterable[str]) -> str:
    """Hex sha256 of the newline-joined ids."""
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()


def write(
    folder: Path,
    modality: str,
    kind: str,
    ids: Sequence[str],
    rows: ModalityRows,
    result: Embedded,
) -> None:
    """Fill ``folder``; the manifest comes last and names the encoder that computed. ``content.npy`` (I, 32) uint8: the
    sha256 of each row's content; ``failed.parquet``: the items that have the modality and yet no vector, each with its
    reason."""
    import polars as pl

    from fusionrec.data.tables import parquet

    content = np.zeros((len(ids), 32), np.uint8)
    digests = "".join(digest for digest, there in zip(rows.content, result.present.tolist(), strict=True) if there)
    content[result.present] = np.frombuffer(bytes.fromhex(digests), np.uint8).reshape(-1, 32)
    if isinstance(result.vectors, np.memmap):
        result.vectors.flush()
    else:
        _save(folder / "vectors.npy", result.vectors)
    _save(folder / "present.npy", result.present)
    _save(folder / "group.npy", rows.group)
    _save(folder / "content.npy", content)
    lines = [(ids[row], code, printable(found, 120)) for row, (code, found) in sorted(result.failed.items())]
    failed = pl.DataFrame(lines, schema=dict.fromkeys(("item_id", "code", "found"), pl.String), orient="row")
    write_bytes(folder / "failed.parquet", parquet(failed))
    manifest = {
        "format_version": 1,
        "modality": modality,
        "kind": kind,
        "encoder": result.encoder.model_dump(mode="json"),
        "fingerprint": result.encoder.fingerprint(),
        "halved": result.halved,
        "dim": int(result.vectors.shape[1]),
        "items_sha256": items_digest(ids),
        "n_items": len(ids),
        "n_present": int(result.present.sum()),
        "group_names": list(rows.group_names),
        "files": {name: sha256_file(folder / name) for name in FILES},
    }
    write_bytes(folder / "manifest.json", to_json(manifest))


def _save(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()  # numpy writes to a file itself, and does not tell a full disk from anything else
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_manifest(paths: Paths, name: str) -> dict[str, Any]:
    """The manifest of one modality, its files compared with their sha256. Raises IntegrityError."""
    folder = paths.embeddings / name
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        recorded = dict(manifest["files"])
        version = manifest["format_version"]
    except FileNotFoundError:
        raise IntegrityError(f"data/embeddings/{name}/manifest.json is missing; run the stage embed@{name}") from None
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"data/embeddings/{name}/manifest.json is no manifest; run embed@{name} again") from None
    if version != 1 or set(recorded) != set(FILES):
        raise IntegrityError(
            f"data/embeddings/{name}: found format {version!r} with {len(recorded)} files, expected 1 with "
            f"{len(FILES)}; run embed@{name} again"
        )
    for file, sha in recorded.items():
        if not (folder / file).is_file() or sha256_file(folder / file) != sha:
            raise IntegrityError(f"data/embeddings/{name}/{file} does not match its manifest; run embed@{name} again")
    return manifest


def load(paths: Paths, names: Sequence[str]) -> ItemSet:
    """The catalogue with these modalities, vectors memory-mapped, ids from data/splits/items.parquet.

    Raises IntegrityError where a file changed, or where the embeddings speak of other items than the splits.
    """
    import polars as pl

    ids = tuple(pl.read_parquet(paths.splits / "items.parquet", columns=["item_id"])["item_id"].to_list())
    digest = items_digest(ids)
    features, present, group = {}, {}, {}
    for name in names:
        manifest = read_manifest(paths, name)
        if manifest["items_sha256"] != digest:
            raise IntegrityError(
                f"data/embeddings/{name} speaks of {manifest['n_items']} items, data/splits of {len(ids)} "
                f"(or of others); run embed@{name} again"
            )
        folder = paths.embeddings / name
        features[name] = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        present[name] = np.load(folder / "present.npy", allow_pickle=False)
        group[name] = np.load(folder / "group.npy", allow_pickle=False)
    return ItemSet(ids, features, present, group)


def failed(paths: Paths, name: str) -> dict[str, int]:
    """Reason code -> how many items have the modality and yet no vector. {} where nothing was embedded yet."""
    import polars as pl

    file = paths.embeddings / name / "failed.parquet"
    if not file.is_file():
        return {}
    counts = pl.read_parquet(file, columns=["code"]).group_by("code").len().sort("code")
    return dict(counts.iter_rows())


def is_of(manifest: Mapping[str, Any], encoder: EncoderSpec) -> bool:
    """Whether the vectors are those of ``encoder``, or of its float32 form where its precision was not taken."""
    return manifest["fingerprint"] in (encoder.fingerprint(), encoder.exact().fingerprint())


def describe(paths: Paths, name: str) -> dict[str, Any]:
    """``{"encoder", "fingerprint"}`` of one modality, as model manifests carry it."""
    manifest = read_manifest(paths, name)
    return {"encoder": manifest["encoder"], "fingerprint": manifest["fingerprint"]}


def seed(paths: Paths, name: str, store: Store) -> int:
    """Put the vectors of data/embeddings/<name>/ that ``store`` lacks into it; how many were put.

    DVC deletes a stage's outs before it runs, so this must happen before, e.g. after ``dvc pull``. A folder that is
    absent or damaged gives 0: its rows are simply encoded again.
    """
    folder = paths.embeddings / name
    try:
        fingerprint = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["fingerprint"]
        rows = np.flatnonzero(np.load(folder / "present.npy", allow_pickle=False))
        digests = np.load(folder / "content.npy", allow_pickle=False)[rows].tobytes().hex()
        first = {digests[64 * n : 64 * n + 64]: rows[n] for n in range(len(rows) - 1, -1, -1)}
        known = store.has(fingerprint, list(first))
        if known.all():
            return 0  # what nobody needs is not hashed
        manifest = read_manifest(paths, name)
    except (IntegrityError, OSError, EOFError, ValueError, LookupError, TypeError):
        return 0
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    lacking = sorted(key for key, have in zip(first, known, strict=True) if not have)
    for start in range(0, len(lacking), 4096):
        part = lacking[start : start + 4096]
        store.put(fingerprint, part, np.array(vectors[[first[k] for k in part]]), manifest["dim"])
    return len(lacking)
