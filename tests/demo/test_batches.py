"""Batches of new days: `none` is like the demo, every other kind differs from it in one thing only."""

from __future__ import annotations

import hashlib
import io
import json
import wave
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp

from fusionrec.demo import alterations, batches, media, world
from fusionrec.demo.alterations import KINDS
from fusionrec.errors import ConfigError, UsageError
from fusionrec.media import video
from tests.demo.conftest import SMALL, Full, Small

N, SEED = 26, 7  # with this seed each kind of file has broken ones, and a clip that moves
DIFFERS = {
    "none": set(),
    "darker_pictures": {"images"},
    "other_language": {"items.csv"},
    "louder_audio": {"audio"},
    "slower_motion": {"video"},
    "new_category": {"items.csv", "images", "video"},
    "shifted_taste": {"interactions.parquet", "queries.csv"},
    "outage_image": {"items.csv", "images"},
    "outage_audio": {"items.csv", "audio"},
    "outage_text": {"items.csv"},
    "outage_video": {"items.csv", "video"},
    "broken_files": {"images", "audio", "video"},
}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def made(small: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One batch of every kind, same seed."""
    root = tmp_path_factory.mktemp("batches")
    for kind in KINDS:
        batches.write(root / kind, small.truth, kind, seed=SEED, n_items=N, workers=1)
    return {kind: root / kind for kind in KINDS}


def items(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "items.csv")


def test_every_kind_is_told_apart_here() -> None:
    assert set(DIFFERS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_differs_from_none_but_what_the_kind_is_about(made: dict[str, Path], kind: str) -> None:
    ours, theirs = digests(made[kind]), digests(made["none"])
    changed = {f.split("/")[0] for f in ours.keys() | theirs.keys() if ours.get(f) != theirs.get(f)}
    assert changed - {"batch.json", "README.md"} == DIFFERS[kind]
    assert json.loads((made[kind] / "batch.json").read_text())["kind"] == kind


@pytest.mark.parametrize("kind", ["other_language", "new_category", "outage_text", "outage_audio"])
def test_the_other_columns_of_the_items_stay(made: dict[str, Path], kind: str) -> None:
    ours, theirs = items(made[kind]), items(made["none"])
    text = {"title", "description", "language"}
    concerned = {"outage_audio": {"audio_path"}, "new_category": {"title", "description", "category"}}.get(kind, text)
    same = [c for c in ours.columns if c not in concerned]
    assert ours.select(same).equals(theirs.select(same)) and not ours.equals(theirs)


def test_the_bytes_depend_on_kind_seed_and_size_alone(small: Small, made: dict[str, Path], tmp_path: Path) -> None:
    batches.write(tmp_path / "a", small.truth, "slower_motion", seed=SEED, n_items=N, workers=2)
    assert digests(tmp_path / "a") == digests(made["slower_motion"])
    batches.write(tmp_path / "a", small.truth, "none", seed=2, n_items=N, workers=1)  # replaces the folder
    ours, theirs = digests(tmp_path / "a"), digests(made["none"])
    assert all(ours[f] != theirs[f] for f in ours.keys() & theirs.keys() if f != "users.csv")


def test_it_is_a_catalogue_of_new_items_and_the_same_users(small: Small, made: dict[str, Path]) -> None:
    batch, log = items(made["none"]), pl.read_parquet(made["none"] / "interactions.parquet")
    assert (made["none"] / "users.csv").read_bytes() == (small.folder / "users.csv").read_bytes()
    assert batch["item_id"].to_list() == [f"AT-{SMALL['n_items'] + k:04d}" for k in range(N)]
    assert set(log["item_id"]) <= set(batch["item_id"])
    assert set(log["user_id"]) <= set(pl.read_csv(small.folder / "users.csv")["user_id"])
    old = pl.read_parquet(small.folder / "interactions.parquet")
    assert log.schema == old.schema and items(small.folder).columns == batch.columns
    for column in ("impression_id", "session_id", "query_id"):
        assert not set(log[column].drop_nulls()) & set(old[column].drop_nulls())
    day = datetime(2026, 4, 1, tzinfo=UTC)
    assert log["timestamp"].min() >= day and log["timestamp"].is_sorted()  # type: ignore[operator]
    assert log.filter(pl.col("event") != "rating")["timestamp"].dt.date().n_unique() == batches.BATCH_DAYS
    for kind, share in (("image", 0.92), ("audio", 0.55), ("video", 0.25)):
        paths = batch[f"{kind}_path"].drop_nulls()
        assert len(paths) == round(share * N) and all((made["none"] / p).is_file() for p in paths)


def brightness(data: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean())


def loudness(data: bytes) -> float:
    with wave.open(io.BytesIO(data)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(float)
    return float(np.log(np.sqrt((samples**2).mean())))


def movement(data: bytes) -> float:
    clip = video.decode(data)
    grey = clip.frames[clip.dense[0]].astype(float).mean(axis=3)
    return float(np.abs(np.diff(grey, axis=0)).mean())


def files(folder: Path, kind: str, most: int = 10**6) -> list[bytes]:
    return [(folder / p).read_bytes() for p in items(folder)[f"{kind}_path"].drop_nulls()[:most]]


def test_what_each_kind_is_about_is_there(made: dict[str, Path]) -> None:
    def mean(measure, kind: str, what: str) -> float:  # noqa: ANN001
        return float(np.mean([measure(data) for data in files(made[kind], what)]))

    assert mean(brightness, "darker_pictures", "image") < 0.65 * mean(brightness, "none", "image")
    assert mean(loudness, "louder_audio", "audio") > mean(loudness, "none", "audio") + np.log(1.6)
    assert mean(movement, "slower_motion", "video") < 0.75 * mean(movement, "none", "video")
    assert set(items(made["other_language"])["language"].drop_nulls()) == {"zh"}
    share = (items(made["new_category"])["category"] == "bottle").mean()
    assert 0.4 < share < 0.8 and "bottle" not in items(made["none"])["category"]
    titles = items(made["new_category"]).filter(pl.col("category") == "bottle")["title"].drop_nulls().str.to_lowercase()
    assert titles.str.contains("bottle|水瓶").all()
    for what, column in (("image", "image_path"), ("audio", "audio_path"), ("text", "title"), ("video", "video_path")):
        before, left = (items(made[k])[column].is_not_null().sum() for k in ("none", f"outage_{what}"))
        assert left < 0.5 * before
    assert 0.1 < np.mean([a != b for a, b in _pairs(made, "broken_files", "image")]) < 0.6


def _pairs(made: dict[str, Path], kind: str, what: str) -> list[tuple[bytes, bytes]]:
    return list(zip(files(made[kind], what), files(made["none"], what), strict=True))


def test_where_taste_shifted_lists_are_clicked_less_and_other_things_are(small: Small, made: dict[str, Path]) -> None:
    def rate(kind: str) -> float:
        counts = dict(pl.read_parquet(made[kind] / "interactions.parquet").group_by("event").len().iter_rows())
        return counts["click"] / counts["impression"]

    assert rate("shifted_taste") < 0.9 * rate("none")


def test_a_batch_of_kind_none_is_like_the_demo_and_the_test_would_notice(full: Full) -> None:
    """At full size, without files: two-sample tests of what a shop would look at. Pictures and sounds: 60 each."""
    demo = batches.Origin(full.world.seed, full.world.strengths, len(full.world.items), len(full.world.users))
    own = 12345
    new = batches._items(demo, own, 300)
    table, jobs = batches._altered("none", new, own)
    old_jobs = media.jobs(full.world.items, full.world.seed)

    def measured(work: list[media.Job], what: str, kind: str = "none") -> list[float]:
        measure = {"image": brightness, "audio": loudness}[what]
        return [measure(alterations.draw(kind, job)) for job in [j for j in work if j[1] == what][:60]]

    for what, kind in (("image", "darker_pictures"), ("audio", "louder_audio")):
        before = measured(old_jobs, what)
        assert ks_2samp(before, measured(jobs, what)).pvalue > 0.01
        assert ks_2samp(before, measured(jobs[:200], what, kind)).pvalue < 1e-6
    assert ks_2samp(np.log(full.world.items.price), np.log(new.price)).pvalue > 0.01
    for a, b in ((full.world.items.language, new.language), (full.world.items.category, new.category)):
        counts = [np.bincount(x, minlength=int(a.max()) + 1) for x in (a, b)]
        assert chi2_contingency(counts).pvalue > 0.01
    for name, share in new.present.items():
        assert share.mean() == pytest.approx(full.world.items.present[name].mean(), abs=0.01)
    assert table["description"].drop_nulls().str.len_chars().median() > 10

    log, _ = batches._log(demo, own, new, shifted=False, prefix="b-")
    late = full.log.filter(pl.col("timestamp") >= datetime(2026, 3, 22, tzinfo=UTC))

    def shares(frame: pl.DataFrame, event: str, base: str) -> float:
        counts = dict(frame.group_by("event").len().iter_rows())
        return counts[event] / counts[base]

    assert shares(log, "click", "impression") == pytest.approx(shares(late, "click", "impression"), rel=0.05)
    assert shares(log, "cart", "click") == pytest.approx(shares(late, "cart", "click"), rel=0.05)
    assert shares(log, "purchase", "cart") == pytest.approx(shares(late, "purchase", "cart"), rel=0.08)
    assert len(log) == pytest.approx(len(late), rel=0.1)
    moved, _ = batches._log(demo, own, new, shifted=True, prefix="b-")
    assert shares(moved, "click", "impression") < 0.8 * shares(log, "click", "impression")


def test_refusals(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'darker_pictures'"):
        batches.write(tmp_path / "a", small.truth, "darker_picture")
    with pytest.raises(UsageError, match="at least 20 items"):
        batches.write(tmp_path / "a", small.truth, "none", n_items=3)
    with pytest.raises(ConfigError, match="fusionrec demo-data"):
        batches.write(tmp_path / "a", tmp_path / "nothing", "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds no batch\.json"):
        batches.write(tmp_path / "mine", small.truth, "none")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


def test_the_new_shape_is_in_no_catalogue() -> None:
    assert batches.NEW_CATEGORY not in world.CATEGORIES
