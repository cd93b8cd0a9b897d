"""The folder that ``write`` makes: deterministic bytes, decodable files, a truth kept apart."""

import hashlib
import io
import json
import wave
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fusionrec.demo import truth, world, write
from fusionrec.encoders.motion import SIDE, affine_motion
from fusionrec.errors import UsageError
from tests.demo.conftest import SMALL, Small


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_two_workers_write_the_same_bytes_as_one(small: Small, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    counts = write(tmp_path / "a", tmp_path / "t", workers=2, progress=lambda *x: seen.append(x), **SMALL)
    assert digests(tmp_path / "a") == digests(small.folder)
    assert digests(tmp_path / "t") == digests(small.truth)
    assert counts == small.counts
    total = counts["files.image"] + counts["files.audio"] + counts["files.video"]
    assert seen[-1] == (total, total)


def test_another_seed_writes_another_catalogue_and_replaces_the_old_one(small: Small, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ceiling.json").write_text("{}")
    (tmp_path / "a" / "stale.txt").write_text("left over")
    write(tmp_path / "a", tmp_path / "t", seed=8, workers=1, **SMALL)
    ours, theirs = digests(small.folder), digests(tmp_path / "a")
    assert "stale.txt" not in theirs
    assert all(ours[f] != theirs[f] for f in set(ours) & set(theirs))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"holds no ceiling\.json"):
        write(tmp_path / "mine", tmp_path / "t", **SMALL)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(UsageError, match="must be apart"):
        write(tmp_path / "a", tmp_path / "a" / "truth", **SMALL)


def test_every_named_file_decodes_and_no_other_exists(small: Small) -> None:
    items = pl.read_csv(small.folder / "items.csv")
    for kind, folder in (("image", "images"), ("audio", "audio"), ("video", "video")):
        named = set(items[f"{kind}_path"].drop_nulls())
        assert named == {f"{folder}/{p.name}" for p in (small.folder / folder).iterdir()}
        assert len(named) == small.counts[f"files.{kind}"]
        assert 0 < len(named) < len(items)
    for path in items["image_path"].drop_nulls():
        with Image.open(small.folder / path) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (224, 224), "RGB")
            assert np.asarray(picture).std() > 5
    for path in items["audio_path"].drop_nulls():
        with wave.open(str(small.folder / path)) as sound:
            assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16_000)
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        assert 2.0 <= len(samples) / 16_000 <= 3.0
        assert 0.4 * 32767 < np.abs(samples.astype(int)).max() < 32767


def test_clips_decode_and_move_as_planted(small: Small) -> None:
    import av

    hidden = world.build(**SMALL)
    movement = {}
    for row in np.flatnonzero(hidden.items.present["video"]):
        data = io.BytesIO((small.folder / f"video/{hidden.items.ids[row]}.mp4").read_bytes())
        with av.open(data) as clip:
            frames = np.stack([f.to_ndarray(format="gray") for f in clip.decode(video=0)])
        assert frames.shape == (30, 160, 160)
        # The camera always shakes a little: what counts is shift, growth and turn from one frame to the next.
        small_frames = np.stack([np.asarray(Image.fromarray(f).resize((SIDE, SIDE)), np.float32) / 255 for f in frames])
        moved, _ = affine_motion(small_frames[:-1], small_frames[1:])
        movement[row] = float(np.median(np.abs(moved[:, :4]).sum(1)))
    still = {r for r in movement if hidden.items.factors["video"]["motion"][r] == 0}
    assert still and len(still) < len(movement)
    assert 2 * max(movement[r] for r in still) < min(v for r, v in movement.items() if r not in still)


def test_what_the_catalogue_tells_is_public(small: Small) -> None:
    ceiling = json.loads((small.folder / "ceiling.json").read_text())
    assert ceiling["label"] == "oracle"
    assert set(ceiling["scores"]) <= {"all", "warm", "cold", "cold_only"}
    everything = b"".join(p.read_bytes() for p in small.folder.glob("*.*") if p.suffix in (".csv", ".json", ".md"))
    for word in (b"occasion", b"taste", b"utility", b"voice", b"timbre", b"appeal"):
        assert word not in everything
    assert b"CC0" in (small.folder / "README.md").read_bytes()


def test_the_kept_truth_is_the_one_that_was_simulated(small: Small) -> None:
    hidden = world.build(**SMALL)
    with np.load(small.truth / "truth.npz", allow_pickle=False) as kept:
        assert kept["utility"].dtype == np.float32
        np.testing.assert_array_equal(kept["utility"], hidden.utility)
        np.testing.assert_allclose(kept["examination"], np.arange(1, 13) ** -0.5, rtol=1e-6)
        np.testing.assert_array_equal(kept["item.text.voice"], hidden.items.factors["text"]["voice"])
    about = json.loads((small.truth / "truth.json").read_text())
    assert about["user_ids"] == list(hidden.users.ids)
    assert len(about["item_ids"]) == SMALL["n_items"]


def test_the_digest_can_be_recomputed_from_the_files(small: Small) -> None:
    log = pl.read_parquet(small.folder / "interactions.parquet")
    good = log.filter(pl.col("event").is_in(["click", "cart", "purchase"]) | (pl.col("value") >= 4))
    first = good.group_by("user_id", "item_id").agg(pl.col("timestamp").min())
    test = first.filter(pl.col("timestamp").dt.date() >= pl.date(2026, 1, 1) + pl.duration(days=80))
    lines = sorted(f"{i}|{t}" for i, t in zip(test["item_id"], test["timestamp"].dt.epoch("us"), strict=True))
    ceiling = json.loads((small.folder / "ceiling.json").read_text())
    assert ceiling["n_pairs"] == len(lines) > 0
    assert ceiling["pairs_digest"] == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_columns_are_those_of_the_contract(small: Small) -> None:
    log = pl.read_parquet(small.folder / "interactions.parquet")
    assert log.columns == [
        "user_id",
        "item_id",
        "event",
        "value",
        "timestamp",
        "impression_id",
        "position",
        "session_id",
        "query_id",
        "surface",
        "review",
    ]
    assert log.schema["timestamp"] == pl.Datetime("us", "UTC") and log.schema["position"] == pl.Int32
    created = pl.read_csv(small.folder / "items.csv", try_parse_dates=True)["created_at"]
    assert created.dtype == pl.Datetime("us", "UTC")
    queries = pl.read_csv(small.folder / "queries.csv", try_parse_dates=True)
    assert queries.columns == ["query_id", "text", "user_id", "clicked_item_id", "timestamp"]
    assert set(queries["query_id"]) == set(log["query_id"].drop_nulls())


def test_bad_sizes_and_strengths_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown strength"):
        world.build(strengths={"pictures": 1.0}, **SMALL)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="at least 0"):
            world.build(strengths={"image": wrong}, **SMALL)
    with pytest.raises(UsageError, match="at least 50 items"):
        world.build(n_items=10)


def test_per_user_metrics_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5]], np.float32)
    positives = np.zeros((3, 5), bool)
    positives[0, [1, 3]] = positives[1, 0] = True
    masked = np.zeros((3, 5), bool)
    masked[0, 0] = True
    values = truth.per_user(scores, positives, masked, np.ones(5, bool), cuts=(2, 3))
    # User 0 ranks 1 2 3 4: hits at ranks 1 and 3. User 1 ranks 4 3 2 1 0: no hit in 3. User 2 has no positive.
    np.testing.assert_allclose(values["recall@2"], [0.5, 0])
    np.testing.assert_allclose(values["recall@3"], [1, 0])
    np.testing.assert_allclose(values["ndcg@3"], [(1 + 0.5) / (1 + 1 / np.log2(3)), 0])


def test_expected_random_agrees_with_random_rankings() -> None:
    rng = np.random.default_rng(3)
    positives, masked, candidates = np.zeros((1, 23), bool), np.zeros((1, 23), bool), np.arange(23) < 19
    positives[0, [2, 5, 7]] = True
    masked[0, [0, 1]] = True
    exact = truth.expected_random(positives, masked, candidates, 4)
    drawn = [truth.per_user(rng.random((1, 23)), positives, masked, candidates, cuts=(4,)) for _ in range(3000)]
    for metric, value in exact.items():
        sample = np.array([d[metric][0] for d in drawn])
        assert abs(sample.mean() - value[0]) < 4 * sample.std() / np.sqrt(len(sample))
