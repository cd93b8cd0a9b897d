"""The index: built from the project's accepted items and embeddings, asked with words, pictures and speech.

A query has up to four sides, each a score for every item: `keyword` (BM25), `vector` (its words against the items'
words, by the text encoder), `clicks` (where the items lie that were clicked after such queries) and `picture` (its
picture against the items' pictures). Standardised over the items, they are summed by weights. Scores are exact inner
products; legend: I items, B queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusionrec.data import tables
from fusionrec.embeddings import base as embeddings
from fusionrec.embeddings.shards import Progress, silent
from fusionrec.embeddings.store import Store
from fusionrec.errors import IntegrityError, UsageError
from fusionrec.fusion.space import MIN_GROUP, FeatureSpace
from fusionrec.modalities.base import ModalitySpec, clean
from fusionrec.paths import Paths
from fusionrec.search import keeping, past
from fusionrec.search.filters import Filters
from fusionrec.search.keyword import Keywords
from fusionrec.search.learning import Learnt, learn, means_of
from fusionrec.search.query import MAX_CHARS, Encoders, Query, encoded_texts, spec_that_reads
from fusionrec.search.standard import Standard
from fusionrec.search.weights import CLICKS, KEYWORD, PICTURE, VECTOR, blend, standardised
from fusionrec.types import Bool, Float32, ItemSet
from fusionrec.types import Columns as C

if TYPE_CHECKING:
    import polars as pl

FIELDS = (C.TITLE, C.DESCRIPTION, C.CATEGORY, "brand", "tags")
WIDTH = 128  # components of each modality that the click side sees


@dataclass(frozen=True)
class Hit:
    """An answer. ``sides``: what each side added to ``score``; ``words``: the query's tokens that the item has."""

    rank: int
    item_id: str
    title: str
    score: float
    sides: Mapping[str, float]
    words: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """``heard``: the words of a spoken query, else None; ``found``: items that met the filters and of which some side
    knows something (``hits`` are the first k of them)."""

    hits: Sequence[Hit]
    found: int
    heard: str | None = None


@dataclass
class SearchIndex:
    """``texts`` and ``images`` name the modalities that queries are encoded with; None where the project has none."""

    ids: Sequence[str]
    items: pl.DataFrame
    keywords: Keywords
    standards: Mapping[str, Standard]
    texts: str | None
    images: str | None
    encoders: Encoders
    languages: NDArray[np.int16]
    learnt: Learnt = field(default_factory=Learnt)

    @classmethod
    def build(
        cls,
        paths: Paths,
        modalities: Mapping[str, ModalitySpec],
        until: datetime | None = None,
        progress: Progress = silent,
    ) -> SearchIndex:
        """The index of a project whose stages up to embed have run.

        ``modalities``: the section of params.yaml; ``until``: only searches before it teach. ``progress`` counts the
        earlier queries that are encoded, once. Raises IntegrityError where embeddings are missing or of another
        encoder, DataRejected before ingest.
        """
        modalities = {name: spec.bound(paths.encoders / name) for name, spec in modalities.items()}
        have = _usable(paths, modalities)
        catalogue = embeddings.load(paths, tuple(have)) if have else ItemSet(_ids(paths))
        items = _in_order(tables.accepted(paths, "items"), catalogue.ids)
        texts = _texts(items, [name for spec in modalities.values() for name in spec.text_columns])
        standards = {
            name: Standard(
                catalogue.features[name], catalogue.present[name], catalogue.group[name], told["group_names"]
            )
            for name, told in have.items()
        }
        encoded = {name: spec for name, spec in modalities.items() if name in have}
        index = cls(
            catalogue.ids,
            items,
            Keywords(texts),
            standards,
            spec_that_reads(encoded, "text"),
            spec_that_reads(encoded, "image"),
            Encoders(encoded),
            _languages(catalogue, spec_that_reads(encoded, "text")),
        )
        if index.texts is not None:
            files = {f"{name}/{file}": told["files"][file] for name, told in have.items() for file in told["files"]}
            index.learnt = _learnt(paths, index, encoded[index.texts], catalogue, files, until, progress)
        return index

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, query: Query, k: int = 10, filters: Filters | None = None) -> Answer:
        """The best k items, fewer where the catalogue has fewer. Ties go by item order.

        Raises UsageError for an empty query, a k below 1, a side or a filter that this project lacks, and DataRejected
        for a picture or a sound that cannot be used.
        """
        if k < 1:
            raise UsageError(f"k: found {k}, expected at least 1")
        keep = (filters or Filters()).mask(self.items)
        heard = self.encoders.heard(query) if query.audio is not None else None
        text = clean(" ".join(filter(None, (clean(query.text), heard))))[:MAX_CHARS]
        sides, told = self._sides(text, query)
        weights = self.learnt.for_query(text)
        parts = {name: blend({name: self._standardised(name, s[None])}, weights)[0] for name, s in sides.items()}
        total = np.asarray(sum(parts.values()), np.float32)
        rows = np.flatnonzero(keep & told)
        best = rows[np.argsort(-total[rows], kind="stable")[:k]]
        titles = self.items[C.TITLE if C.TITLE in self.items.columns else C.ITEM]
        hits = [
            Hit(
                rank,
                self.ids[row],
                titles[row] or "",
                float(total[row]),
                {name: float(part[row]) for name, part in parts.items()},
                self.keywords.shared(text, row) if text else (),
            )
            for rank, row in enumerate(best.tolist(), 1)
        ]
        return Answer(hits, len(rows), heard)

    def _sides(self, text: str, query: Query) -> tuple[dict[str, Float32], Bool]:
        """Side -> (I,) scores, and (I,) of which items any side knows something."""
        told = np.zeros(len(self), bool)
        sides: dict[str, Float32] = {}
        if not text and query.image is None:
            raise UsageError("the query is empty: give words, a picture or a spoken sentence")
        if text:
            sides[KEYWORD] = self.keywords.scores(text)
            told |= sides[KEYWORD] > 0
            if self.texts is None and not any(self.keywords.texts):
                raise UsageError("no item has a text: this catalogue cannot be searched with words")
        if text and self.texts is not None:
            vector, language = self.encoders.text(self.texts, text)
            placed = self._placed(vector[None], [language])
            sides[VECTOR] = self.standards[self.texts].similarity(placed)[0]
            told |= self.standards[self.texts].present
            if self.learnt.map is not None:
                sides[CLICKS] = self.learnt.map.scores(placed)[0]
                told |= self.learnt.map.items.any(axis=1)
        if query.image is not None:
            if self.images is None:
                raise UsageError("params.yaml names no modality that encodes pictures: search with words instead")
            standard = self.standards[self.images]
            placed = standard.place(self.encoders.image(self.images, query)[None], [""])
            sides[PICTURE] = standard.similarity(placed)[0]
            told |= standard.present
        return sides, told

    def _standardised(self, side: str, scores: Float32) -> Float32:
        """Words reach one language only, so they are compared within the items' languages."""
        return standardised(scores, self.languages if side == KEYWORD else None)

    def _placed(self, vectors: Float32, languages: list[str]) -> Float32:
        if self.texts is None:
            raise AssertionError("without a text modality no query has a vector")
        return self.standards[self.texts].place(vectors, languages, self.learnt.means)

    def scores(self, texts: Sequence[str], store: Store, progress: Progress = silent) -> dict[str, Float32]:
        """The sides of many text queries at once, (B, I) standardised scores each; encoded through ``store``."""
        words = np.stack([self.keywords.scores(clean(text)) for text in texts])
        sides = {KEYWORD: self._standardised(KEYWORD, words)}
        if self.texts is not None:
            spec = self.encoders.spec(self.texts)
            placed = self._placed(*encoded_texts(spec, texts, store, progress))
            sides[VECTOR] = self._standardised(VECTOR, self.standards[self.texts].similarity(placed))
            if self.learnt.map is not None:
                sides[CLICKS] = self._standardised(CLICKS, self.learnt.map.scores(placed))
        return sides


def _learnt(
    paths: Paths,
    index: SearchIndex,
    spec: ModalitySpec,
    catalogue: ItemSet,
    files: Mapping[str, str],
    until: datetime | None,
    progress: Progress,
) -> Learnt:
    """What the searches before ``until`` teach; from the private home where it was learnt before."""
    earlier = past.searches(paths, index.ids, until=until)
    if not len(earlier):
        return Learnt()
    facts = {**files, "queries": earlier.digest(), "encoder": spec.encoder.for_queries().fingerprint()}
    facts["texts"] = embeddings.items_digest(index.keywords.texts)
    folder = keeping.name(items=embeddings.items_digest(index.ids), **facts)
    kept = keeping.read(paths.home, folder, len(index))
    if kept is not None:
        return kept
    vectors, languages = encoded_texts(spec, earlier.texts, Store(paths.store), progress)
    means = means_of(vectors, languages)
    index.learnt = Learnt(means=means)  # the sides below stand on them
    placed = index._placed(vectors, languages)
    space = FeatureSpace(WIDTH).fit(catalogue, np.ones(len(catalogue), bool))
    store = Store(paths.store)
    found = learn(earlier, placed, lambda some: index.scores(some.texts, store), space.apply(catalogue)[0])
    found = Learnt(found.weights, means, found.words, found.map, found.told)
    keeping.write(paths.home, folder, found)
    return found


def _usable(paths: Paths, modalities: Mapping[str, ModalitySpec]) -> dict[str, dict[str, Any]]:
    """Modality -> its manifest. Raises IntegrityError where one is missing or was made by another encoder."""
    found = {}
    for name, spec in modalities.items():
        again = f"run `fusionrec repro`, or `dvc repro embed@{name}`"
        if not (paths.embeddings / name / "manifest.json").is_file():
            raise IntegrityError(f"data/embeddings/{name} is missing; {again}")
        found[name] = embeddings.read_manifest(paths, name)
        if not embeddings.is_of(found[name], spec.encoder):
            raise IntegrityError(f"data/embeddings/{name} is of another encoder than params.yaml names; {again}")
    return found


def _languages(catalogue: ItemSet, name: str | None) -> NDArray[np.int16]:
    """(I,) the items' languages as far as :data:`MIN_GROUP` items share one; 0 for the others."""
    out = np.zeros(len(catalogue), np.int16)
    if name is not None:
        group = np.where(catalogue.present[name], catalogue.group[name] + 1, 0).astype(np.int16)
        large = [g for g in np.unique(group) if (group == g).sum() >= MIN_GROUP]
        out = np.where(np.isin(group, large), group, 0).astype(np.int16)
    return out


def _ids(paths: Paths) -> tuple[str, ...]:
    from fusionrec.types import item_order

    return tuple(item_order(tables.accepted(paths, "items")[C.ITEM].to_list()))


def _in_order(items: pl.DataFrame, ids: Sequence[str]) -> pl.DataFrame:
    row = {item: number for number, item in enumerate(items[C.ITEM].to_list())}
    if set(row) != set(ids):
        raise IntegrityError("data/tables and data/splits speak of different items; run `fusionrec repro`")
    return items[[row[item] for item in ids]]


def _texts(items: pl.DataFrame, more: Sequence[str]) -> list[str]:
    """I texts: :data:`FIELDS` and what else is encoded as text, as far as the catalogue has them; "" for nothing."""
    have = [name for name in dict.fromkeys((*FIELDS, *more)) if name in items.columns]
    rows = items.select(have).iter_rows() if have else ((),) * len(items)
    return [" ".join(filter(None, map(clean, row))) for row in rows]
