"""The bundle: what a recommender needs to answer, in folders with three lifetimes.

``model/`` is what training learnt, ``ranker/`` where a ranker judges the model's candidates, ``encoders/`` the weights
of encoders that were learnt here (a folder each: a new item is embedded by them); ``catalogue/`` the items they answer
about (metadata and vectors, refreshed without training); ``users/`` the histories by pseudonym and the attributes that
the ranker reads, which are personal: erasable, never uploaded. Beside them lie
``bundle.json`` and ``train_pairs.safetensors``: hashes of the pairs and users of the fit, so that a later comparison
can tell which test pairs this model never saw, without the pairs. docs/contracts.md (data/bundle/) is the format.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionrec.data.files import fresh_folder, to_json, write_bytes
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.registry.catalogue import Catalogue, load_catalogue, parquet, save_catalogue
from fusionrec.registry.model import LoadedModel, arrays_to_bytes, bytes_to_arrays, load_model
from fusionrec.registry.sealed import digest_of, read_manifest, seal, sha256_file, unseal
from fusionrec.types import Columns, ItemSet

if TYPE_CHECKING:
    import polars as pl

    from fusionrec.encoders.base import EncoderSpec
    from fusionrec.ranking.rerankers.base import Reranker
    from fusionrec.recommenders.recommender import Recommender
    from fusionrec.registry.ranker import LoadedRanker

PAIRS = "train_pairs.safetensors"
BUNDLE = "bundle.json"
FORMAT_VERSION = 2
"""Of bundle.json. In format 1 the digest left out the pairs of the fit, the order of its users and ``temporal``."""
_OUTSIDE = frozenset({"bundle", "digest", "metrics", "users"})


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; ``ranker`` None where candidates keep the model's order, ``reranker`` None where nobody looks
    at the list as a whole.

    ``pairs`` (N,) uint64: sorted hashes of the pairs of the fit (:func:`pair_hashes`); ``users`` (U,) uint64: hashes of
    the users in the order of the model's user rows; ``about``: bundle.json.
    """

    folder: Path
    model: LoadedModel
    ranker: LoadedRanker | None
    reranker: Reranker | None
    catalogue: Catalogue
    pairs: NDArray[np.uint64]
    users: NDArray[np.uint64]
    digest: str
    about: Mapping[str, Any]
    _attached: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model or the ranker reads; where the list is re-ranked, all that the catalogue has."""
        if self.reranker is not None:
            return self.catalogue.items.modalities
        return tuple(sorted({*self.model.modalities, *(self.ranker.modalities if self.ranker else ())}))

    def recommender(self) -> Recommender:
        """Attached to its own catalogue snapshot, with the attributes of users where it has them, ready to answer."""
        if not self._attached:
            self._attached.append(self.attached(self.catalogue.items, self._attributes()))
        return self._attached[0]

    def attached(self, items: ItemSet, users: pl.DataFrame | None = None) -> Recommender:
        """The recommender over the catalogue ``items``. ``users``: pseudonyms with their attributes, which a ranker
        reads; without them they are unknown to it. What was attached before is so no longer."""
        from fusionrec.recommenders.recommender import Recommender
        from fusionrec.registry.ranker import two_stage

        self.model.retriever.attach(items.only(*self.model.modalities))
        found = Recommender(retriever=self.model.retriever)
        if self.ranker is not None:
            self.ranker.attach(items)
            found = two_stage(self.model.retriever, self.ranker) or found
            if users is not None:  # the bundle names the users of the fit by hash alone
                hashed = users.with_columns(_texts(user_hashes(users[Columns.USER])).alias(Columns.USER))
                self.ranker.meet(hashed, _texts(self.users).to_list())
        if self.reranker is not None:
            self.reranker.attach(items)
            found = replace(found, reranker=self.reranker)
        return found

    def encoder(self, modality: str) -> EncoderSpec:
        """The encoder that made the catalogue's vectors of a modality, with what was learnt: for items that are new."""
        from fusionrec import encoders  # the union: read when needed
        from fusionrec.registry.model import section

        found = section("encoder", self.model.manifest["modalities"][modality]["encoder"], encoders.AnyEncoder)
        bound: EncoderSpec = found.bound(self.folder / "encoders" / modality)
        return bound

    def _attributes(self) -> pl.DataFrame | None:
        if self.ranker is None or not (self.folder / "users").is_dir():
            return None
        return self._of_users("attributes.parquet")

    def _of_users(self, file: str) -> pl.DataFrame:
        import polars as pl

        return pl.read_parquet(io.BytesIO(unseal(self.folder / "users", self.about["users"]).read(file)))

    def histories(self) -> pl.DataFrame:
        """``user_id`` (pseudonym), ``item_id``, ``timestamp``; IntegrityError where users/ is absent or altered."""
        return self._of_users("histories.parquet")


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


def _texts(hashes: NDArray[np.uint64]) -> pl.Series:
    """Hashes as texts, which a table can be joined by."""
    import polars as pl

    return pl.Series(hashes.astype(np.uint64)).cast(pl.String)


def bundle_digest(about: Mapping[str, Any]) -> str:
    """The digest of a bundle: sha256 over what bundle.json says of everything that an answer or the gate reads.

    Outside are the user state, which is erased and refreshed by itself and never registered, and the metrics, which
    are told and decide nothing: the same bundle measured once more is no other one.
    """
    return hashlib.sha256(to_json({k: v for k, v in about.items() if k not in _OUTSIDE})).hexdigest()


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
    ranker: Path | None = None,
    reranker: Mapping[str, Any] | None = None,
    attributes: pl.DataFrame | None = None,
    encoders: Mapping[str, Path] | None = None,
) -> str:
    """Write the bundle of a model folder, and of the ``ranker`` folder behind it; returns its digest.

    ``table``: metadata of the items, any order; ``items``: the catalogue with its vectors; ``fingerprints``: modality
    -> encoder fingerprint; ``histories``: what users did, by pseudonym; ``trained``: the pairs that the fit saw
    (``user_id``, ``item_id``); ``users``: pseudonyms in the order of the model's user rows; ``metrics``: the headline.
    ``temporal``: every pair of the test split is later than every pair that the fit saw. ``attributes``: the table of
    users (``user_id``, attributes), kept for a ranker. ``reranker``: the settings of what re-ranks. ``encoders``:
    modality -> folder of the weights that its encoder learnt here.
    """
    trained_model, ids = load_model(model), list(users)
    judge = unseal(ranker).digest if ranker is not None else None
    with fresh_folder(folder) as target:
        shutil.copytree(model, target / "model")
        if ranker is not None:
            shutil.copytree(ranker, target / "ranker")
        catalogue = save_catalogue(target / "catalogue", table, items, fingerprints)
        for name, learnt in (encoders or {}).items():
            shutil.copytree(learnt, target / "encoders" / name)
        digests = {f"encoders/{name}": unseal(target / "encoders" / name).digest for name in encoders or {}}
        people = _seal_users(target / "users", histories, None if ranker is None else _read_by(ranker, attributes, ids))
        hashed = np.unique(pair_hashes(trained[Columns.USER], trained[Columns.ITEM]))
        write_bytes(target / PAIRS, arrays_to_bytes({"pairs": hashed, "users": user_hashes(ids)}))
        about = {
            "format_version": FORMAT_VERSION,
            "model": trained_model.digest,
            "ranker": judge,
            "reranker": dict(reranker) if reranker else None,
            "catalogue": catalogue,
            "users": people,
            **digests,
            "metrics": dict(metrics),
            "temporal": temporal,
            "files": {PAIRS: sha256_file(target / PAIRS)},
        }
        about["bundle"] = bundle_digest(about)
        write_bytes(target / BUNDLE, to_json({**about, "digest": digest_of(about)}))

    return str(read_bundle_json(folder)["bundle"])


def _seal_users(folder: Path, histories: pl.DataFrame, attributes: pl.DataFrame | None) -> str:
    """Write what is personal; returns its digest."""
    ordered = histories.select(Columns.USER, Columns.ITEM, Columns.TIME).sort(
        Columns.USER, Columns.TIME, Columns.ITEM, nulls_last=True
    )
    files = {"histories.parquet": parquet(ordered)}
    if attributes is not None:
        files["attributes.parquet"] = parquet(attributes)
    return seal(folder, files, {"n_users": ordered[Columns.USER].n_unique(), "n_pairs": ordered.height})


def _read_by(ranker: Path, attributes: pl.DataFrame | None, users: list[str]) -> pl.DataFrame:
    """Of the table of users what the ranker reads: the users of the fit, the attributes that it codes; nothing else of
    a person is kept."""
    import polars as pl

    from fusionrec.ranking.attributes import Coding

    ids = pl.Series(Columns.USER, users, dtype=pl.String)
    if attributes is None:
        return ids.to_frame().clear()
    coding = Coding.from_json(read_manifest(ranker / "manifest.json")["attributes"])
    coded = [name for name in attributes.columns if name in coding.values or name in coding.edges]
    known = attributes.filter(pl.col(Columns.USER).is_in(ids.implode())).unique(
        Columns.USER, keep="first", maintain_order=True
    )
    return known.select(Columns.USER, *sorted(coded)).sort(Columns.USER)


def read_bundle_json(folder: Path) -> dict[str, Any]:
    """bundle.json with its own digest and the bundle's checked."""
    about = read_manifest(folder / BUNDLE, FORMAT_VERSION)
    if about.get("digest") != digest_of(about) or about.get("bundle") != bundle_digest(about):
        raise IntegrityError(f"{folder.name}/{BUNDLE} was changed: its digest does not match; the bundle is not loaded")
    return about


def verify_bundle(folder: Path, about: Mapping[str, Any]) -> None:
    """Check what is shared (:func:`shared`) against bundle.json; opens nothing."""
    path = folder / PAIRS
    if not path.is_file() or sha256_file(path) != about["files"].get(PAIRS):
        raise IntegrityError(f"{folder.name}/{PAIRS} does not match its recorded sha256; the bundle is not loaded")
    for part in shared(about):
        unseal(folder / part, about[part])


def shared(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders of a bundle that hold nothing personal, in the order of bundle.json's digest."""
    return ("model", "catalogue", *(("ranker",) if about.get("ranker") else ()), *_encoders(about))


def _encoders(about: Mapping[str, Any]) -> dict[str, str]:
    """``encoders/<modality>`` -> digest, of a bundle.json."""
    return {part: str(digest) for part, digest in sorted(about.items()) if part.startswith("encoders/")}


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
    learnt = _encoders(about)
    allowed = {*shared(about), BUNDLE, PAIRS} | ({"users"} if users else set())
    found = {entry.name for entry in folder.iterdir()} - ({"encoders"} if learnt else set())
    found |= {f"encoders/{entry.name}" for entry in (folder / "encoders").glob("*")} if learnt else set()
    if odd := sorted(found ^ allowed):
        state = "does not belong to a bundle" if odd[0] in found else "is missing"
        raise IntegrityError(f"{folder.name}/{odd[0]} {state}; the bundle is not loaded")
    verify_bundle(folder, about)  # every folder is verified before any of them is opened
    if users:
        unseal(folder / "users", about["users"])
    catalogue = load_catalogue(folder / "catalogue", about["catalogue"])
    model = load_model(folder / "model", about["model"])
    ranker = reranker = None
    if about.get("ranker") or about.get("reranker"):
        from fusionrec.registry.ranker import build_reranker, load_ranker  # a bundle without does without its imports

        reranker = build_reranker(about["reranker"]) if about.get("reranker") else None
        ranker = load_ranker(folder / "ranker", about["ranker"]) if about.get("ranker") else None
    content = (folder / PAIRS).read_bytes()
    if hashlib.sha256(content).hexdigest() != about["files"][PAIRS]:
        raise IntegrityError(f"{folder.name}/{PAIRS} changed while it was being read; it is not loaded")
    hashes = bytes_to_arrays(content)
    bundle = Bundle(
        folder, model, ranker, reranker, catalogue, hashes["pairs"], hashes["users"], about["bundle"], about
    )
    if lacking := sorted(set(bundle.modalities) - set(catalogue.items.modalities)):
        raise ConfigError(f"the model reads {lacking}, the catalogue snapshot of {folder.name} has no such vectors")
    return bundle
