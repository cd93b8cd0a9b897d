"""Words: what users wrote and asked becomes vectors, for rankers that read it (``rank.ranker.own_words``).

Reviews, search queries and spoken queries, each with its user and its time. A word whose time is unknown is left out:
nobody could tell whether it came before what is predicted, and the review of the shown item tells how it went. Where
no ranker reads words, the stage writes an empty folder and encodes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from fusionrec.config import Params
from fusionrec.data import tables
from fusionrec.data.schema import TIME
from fusionrec.embeddings.store import Store
from fusionrec.errors import DataRejected
from fusionrec.media import base as media
from fusionrec.paths import Paths
from fusionrec.registry.words import save_nothing, save_words
from fusionrec.search import speech
from fusionrec.search.query import MAX_BYTES, encoded_texts, spec_that_reads
from fusionrec.stages.progress import counted
from fusionrec.types import Columns as C
from fusionrec.types import Report

QUERY, SPOKEN, REVIEW = "query", "spoken", "review"
_SOUND = "audio_path"
_SAID = pl.Schema({C.USER: pl.String(), C.TIME: TIME, "kind": pl.String(), "said": pl.String()})


def run(params: Params, paths: Paths) -> Report:
    """Writes data/words/; see docs/contracts.md. Raises DataRejected where the stages before have not run."""
    report = Report("words")
    modality = spec_that_reads(params.modalities, "text")
    if not any(spec.hears for spec in (params.rank.ranker, *params.rank.baselines)):
        return _nothing(report, paths, "no ranker reads words (rank.ranker.own_words)")
    if modality is None:
        return _nothing(report, paths, "no modality has an encoder that reads text")
    start = time.monotonic()
    said = pl.concat([_queries(paths), _reviews(paths)])
    untimed = said[C.TIME].null_count()
    if untimed:
        report.notes.append(
            f"{untimed} of {said.height} texts have no timestamp and are left out: nobody knows what they came before"
        )
    said = said.drop_nulls(C.TIME)
    said = _heard(said, params.source.media_root(paths.project), report)
    report.seconds["read"] = time.monotonic() - start
    if said.is_empty():
        return _nothing(report, paths, "nobody wrote or asked anything whose time is known")
    spec = params.modalities[modality].bound(paths.encoders / modality)
    with counted("encode words") as progress:
        vectors, languages = encoded_texts(spec, said["said"].to_list(), Store(paths.store), progress)
    told = pl.Series((vectors != 0).any(axis=1))
    said = said.drop("said").with_columns(language=pl.Series(languages, dtype=pl.String)).filter(told)
    encoder = spec.encoder.for_queries()
    about = {"encoder": encoder.model_dump(mode="json"), "fingerprint": encoder.fingerprint()}
    about |= {"modality": modality, "dim": int(vectors.shape[1])}
    save_words(paths, tables.parquet(said), vectors[told.to_numpy()], about)
    report.seconds["encode"] = time.monotonic() - start - report.seconds["read"]
    report.counts = {"words": said.height, "users": said[C.USER].n_unique()}
    report.counts |= dict(said["kind"].value_counts().sort("kind").iter_rows())
    return report


def _nothing(report: Report, paths: Paths, why: str) -> Report:
    save_nothing(paths, why)
    report.counts = {"words": 0}
    report.notes.append(f"no words: {why}")
    return report


def _queries(paths: Paths) -> pl.DataFrame:
    """The accepted queries of known users, in order of their ids; ``said`` of a spoken one is the path of its sound."""
    log = tables.accepted(paths, "queries")
    log = log.with_columns(
        pl.lit(None, dtype=TIME if name == C.TIME else pl.String).alias(name)
        for name in (C.TIME, C.USER, "text", _SOUND)
        if name not in log.columns
    ).sort(C.QUERY)
    written = pl.col("text").str.strip_chars().fill_null("") != ""
    log = log.with_columns(
        kind=pl.when(written).then(pl.lit(QUERY)).otherwise(pl.lit(SPOKEN)),
        said=pl.when(written).then(pl.col("text")).otherwise(pl.col(_SOUND)),
    )
    return log.select(list(_SAID)).cast(_SAID).drop_nulls([C.USER, "said"])


def _reviews(paths: Paths) -> pl.DataFrame:
    """The reviews, at the time of the event that they came with."""
    log = tables.accepted(paths, "interactions")
    if C.REVIEW not in log.columns:
        return pl.DataFrame(schema=_SAID)
    if C.TIME not in log.columns:
        log = log.with_columns(pl.lit(None, dtype=TIME).alias(C.TIME))
    log = log.filter(pl.col(C.REVIEW).str.strip_chars().fill_null("") != "").sort(C.TIME, C.USER, C.ITEM)
    return log.select(C.USER, C.TIME, kind=pl.lit(REVIEW), said=C.REVIEW).cast(_SAID)


def _heard(said: pl.DataFrame, root: Path, report: Report) -> pl.DataFrame:
    """The same with the words of spoken queries in the place of their paths; those without any are left out."""
    paths = said.filter(pl.col("kind") == SPOKEN)["said"].unique(maintain_order=True).to_list()
    if not paths:
        return said
    words = dict(_transcripts(root, paths))
    if lost := len(paths) - len(words):
        report.notes.append(f"{lost} of {len(paths)} spoken queries are left out: no English sentence was heard")
    spoken = pl.col("kind") == SPOKEN
    heard = pl.col("said").replace_strict(words, default=None, return_dtype=pl.String)
    return said.with_columns(said=pl.when(spoken).then(heard).otherwise(pl.col("said"))).drop_nulls("said")


def _transcripts(root: Path, paths: list[str]) -> Iterator[tuple[str, str]]:
    """(path, words) of every sound in which somebody speaks."""
    transcriber: speech.Transcriber | None = None
    with counted("listen to spoken queries") as progress:
        for done, path in enumerate(paths, 1):
            try:
                sound = speech.decoded(media.read(root, path, MAX_BYTES), path)
            except (media.MediaError, DataRejected):
                continue
            transcriber = transcriber or speech.Transcriber()
            if words := transcriber.words(sound):
                yield path, words
            progress(done, len(paths))
