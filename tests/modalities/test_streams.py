"""One clip's sound and words as modalities, on the axis of its pictures, through the real decoders."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest

from fusionrec.media.base import MediaError
from fusionrec.modalities.soundtrack import Soundtrack
from fusionrec.modalities.subtitles import Subtitles
from tests.media.streams import clip

FILES = {"whole": {}, "mute": {"sound": False, "words": False}, "cued": {"words": False}}
CUES = "WEBVTT\n\n00:07.500 --> 00:08.000\nonly here\n"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    paths, digests = [], []
    for name, made in FILES.items():
        (root / f"{name}.mkv").write_bytes(clip(**made))
        paths.append(f"{name}.mkv")
        digests.append(hashlib.sha256((root / f"{name}.mkv").read_bytes()).hexdigest())
    table = {"item_id": [*FILES, "none"], "video_path": [*paths, None], "video_sha256": [*digests, None]}
    return pl.DataFrame({**table, "subtitles": [None, None, CUES, CUES]}), root


def test_the_sound_of_the_windows_is_one_behind_the_other(catalogue):
    modality = Soundtrack().build()
    rows = modality.rows(*catalogue)
    assert rows.present.tolist() == [True, True, True, False] and len(set(rows.content)) == 4
    heard = modality.load(0)
    assert heard.dtype == np.float32 and len(heard) == pytest.approx(6 * 16_000, abs=2200)
    loud = np.flatnonzero(np.abs(heard) > 0.2) / 16_000
    assert 2.4 < loud.min() < 2.7 and 3.4 < loud.max() < 3.7  # 4 s and 5 s, of which the second window begins at 3.47
    with pytest.raises(MediaError) as caught:
        modality.load(1)
    assert caught.value.code == "no_audio_stream"


def test_words_come_from_the_track_or_from_the_catalogue(catalogue):
    modality = Subtitles().build()
    rows = modality.rows(*catalogue)
    assert rows.present.tolist() == [True, True, True, False]
    assert modality.load(0) == "before\n红色 lamp second line"
    assert modality.load(2) == "only here"
    with pytest.raises(MediaError) as caught:
        modality.load(1)
    assert caught.value.code == "no_subtitles"
    other = Subtitles(field=None).build().rows(*catalogue)
    assert other.content[0] == rows.content[0] and other.content[2] != rows.content[2]


def test_words_outside_of_every_window_are_no_words(catalogue):
    items, root = catalogue
    between = "1\n00:00:06,000 --> 00:00:06,500\nlost\n"
    modality = Subtitles(field="cues").build()
    modality.rows(items.with_columns(cues=pl.Series([between] * 4)), root)
    with pytest.raises(MediaError) as caught:
        modality.load(2)
    assert caught.value.code == "no_words"
