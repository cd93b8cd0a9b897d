"""A trained ranker as a folder, in the format of a model's (:mod:`fusionrec.registry.model`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrec.data.files import write_json
from fusionrec.ranking.attributes import Coding
from fusionrec.ranking.base import Ranker
from fusionrec.ranking.rerankers.base import Reranker, RerankerSpec
from fusionrec.recommenders.base import Retriever
from fusionrec.recommenders.recommender import Recommender
from fusionrec.registry.model import about_manifest, built, read_fitted, seal_fitted, section
from fusionrec.registry.sealed import unseal
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    import polars as pl

RERANKER = "reranker.json"
"""The settings of the re-ranker: it learns nothing."""
MAIN, WITHOUT, ONLY = "ranker", "without-", "only-"
"""The folders of the chosen ranker, of itself without content or ids, and of itself with one modality's content alone
(the last two: beginnings of names); a baseline's carries the name of its kind."""


@dataclass(frozen=True)
class LoadedRanker:
    """A restored ranker. :meth:`attach` must follow before predicting, :meth:`meet` where users have attributes."""

    ranker: Ranker
    label: str
    modalities: tuple[str, ...]
    manifest: Mapping[str, Any]
    digest: str

    @property
    def hears(self) -> bool:
        """Whether it reads what users wrote and asked."""
        from fusionrec import ranking

        return bool(section("ranker", self.manifest["spec"]["ranker"], ranking.AnyRanker).hears)

    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue, of which the ranker reads its own modalities."""
        self.ranker.attach(items.only(*self.modalities))

    def meet(self, users: pl.DataFrame, ids: Sequence[str]) -> None:
        """Bind the attributes in ``users`` (``user_id``, attributes) of the users ``ids`` of the fit, in its order."""
        self.ranker.meet(Coding.from_json(self.manifest["attributes"]).of(users, ids))


def save_ranker(
    folder: Path,
    ranker: Ranker,
    *,
    spec: Mapping[str, Any],
    label: str,
    modalities: Mapping[str, Mapping[str, Any]],
    surfaces: Sequence[str],
    coding: Coding,
    seed: int,
    curve: Sequence[Mapping[str, float]] = (),
    behind: Mapping[str, Any] | None = None,
) -> str:
    """Write a fitted ranker to ``folder`` (replacing it as a whole); returns its digest.

    ``spec``: ``{"ranker": ..., "fusion": ...}`` as JSON, from which it is rebuilt; ``modalities``: name -> {"encoder",
    "fingerprint"} of those it was given; ``surfaces``: the names that its context codes from 1 stand for; ``coding``:
    how the attributes of users were coded, without which nobody could tell it who they are;
    ``behind``: how a Recommender orders the candidates of retrieval by it (``task``, ``depth``, ``trust``).
    """
    manifest = {
        "kind": spec["ranker"]["kind"],
        "spec": dict(spec),
        "label": label,
        "modalities": {name: dict(value) for name, value in modalities.items()},
        "surfaces": list(surfaces),
        "attributes": coding.as_json(),
        "seed": seed,
        "tasks": list(ranker.tasks),
        "behind": dict(behind) if behind else None,
    }
    return seal_fitted(folder, ranker, manifest, curve)


def load_ranker(folder: Path, expected: str | None = None) -> LoadedRanker:
    """Verify a ranker's folder and restore it (not attached to a catalogue yet). Errors as of
    :func:`fusionrec.registry.model.load_model`."""
    sealed = unseal(folder, expected)
    manifest = sealed.manifest
    with about_manifest(folder):
        label, modalities = str(manifest["label"]), tuple(sorted(manifest["modalities"]))
        ranker = build_ranker(manifest["spec"])
        ranker.restore(*read_fitted(sealed))
    return LoadedRanker(ranker, label, modalities, manifest, sealed.digest)


def stands_behind(manifest: Mapping[str, Any]) -> bool:
    """Whether validation lets the ranker of this manifest judge the candidates of retrieval at all."""
    how = manifest["behind"]
    return bool(how) and how["trust"] < 1


def two_stage(retriever: Retriever, loaded: LoadedRanker) -> Recommender | None:
    """The retriever with this ranker behind it, as validation chose it; None where validation trusts retrieval alone,
    and for a ranker that was not tried behind one."""
    behind = loaded.manifest["behind"]
    if not stands_behind(loaded.manifest):
        return None
    return Recommender(retriever, loaded.ranker, depth=behind["depth"], task=behind["task"], trust=behind["trust"])


def build_ranker(spec: Mapping[str, Any]) -> Ranker:
    """An unfitted ranker from its sections as JSON."""
    from fusionrec import ranking

    ranker: Ranker = built(spec, "ranker", ranking.AnyRanker)
    return ranker


def save_reranker(folder: Path, spec: RerankerSpec) -> None:
    """Write what re-ranks beside the rankers of ``folder``."""
    write_json(folder / RERANKER, spec.model_dump(mode="json"))


def read_reranker(folder: Path) -> dict[str, Any] | None:
    """The settings that :func:`save_reranker` wrote; None where nothing re-ranks."""
    file = folder / RERANKER
    found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found


def build_reranker(spec: Mapping[str, Any]) -> Reranker:
    """From its section as JSON. Raises ConfigError for a kind or a value that this version does not know."""
    from fusionrec.ranking import rerankers

    found: Reranker = section("reranker", spec, rerankers.AnyReranker).build()
    return found
