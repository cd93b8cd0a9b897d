"""Clips: which file of an item is read, and what makes its content another one."""

from __future__ import annotations

import hashlib

import polars as pl
import pytest

from fusionrec.encoders.motion import Motion
from fusionrec.media.base import MediaError
from fusionrec.modalities.video import Video
from tests.media import clips


@pytest.fixture
def catalogue(tmp_path):
    """(items, media root): a and c have a clip, b none, d one that is not there."""
    shas = []
    for name, frames in (("a", 7), ("c", 40)):
        (tmp_path / f"{name}.mp4").write_bytes(clips.encoded(clips.ramp(frames)))
        shas.append(hashlib.sha256((tmp_path / f"{name}.mp4").read_bytes()).hexdigest())
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "video_path": ["a.mp4", None, "c.mp4", "d.mp4"],
            "video_sha256": [shas[0], None, shas[1], None],
        }
    )
    return items, tmp_path


def test_an_item_is_present_where_ingest_found_its_file(catalogue):
    modality = Video().build()
    rows = modality.rows(*catalogue)
    assert rows.present.tolist() == [True, False, True, False] and [bool(c) for c in rows.content] == [1, 0, 1, 0]
    assert modality.load(0).frames.shape == (7, 48, 64, 3) and len(modality.load(2).spread) == 2


def test_settings_that_choose_frames_are_part_of_the_content(catalogue):
    specs = (Video(), Video(windows=1), Video(max_seconds=1.0))
    contents = [spec.build().rows(*catalogue).content[2] for spec in specs]
    assert len(set(contents)) == 3
    fewer = specs[2].build()
    fewer.rows(*catalogue)
    assert fewer.load(2).duration < 1.2


def test_a_clip_that_changed_since_ingest_is_not_used(catalogue):
    modality = Video().build()
    modality.rows(*catalogue)
    (catalogue[1] / "a.mp4").write_bytes(clips.encoded(clips.ramp(8)))
    with pytest.raises(MediaError) as caught:
        modality.load(0)
    assert caught.value.code == "changed_on_disk"


def test_the_default_encoder_is_motion_and_a_catalogue_without_clips_has_none(catalogue):
    assert Video().encoder == Motion()
    assert not Video().build().rows(catalogue[0].select("item_id"), catalogue[1]).present.any()
