"""Picture, sound and words of one clip on one axis of time."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.media import bounded, timeline, video
from fusionrec.media.base import MediaError

from .streams import CUES, clip

SRT = """1
00:00:00,500 --> 00:00:01,000
before

2
00:00:04,000 --> 00:00:05,000
<i>红色</i> lamp
second line

3
0:06.000 --> 0:06.900 align:start
between
"""


def test_the_windows_are_those_of_the_frames():
    data = clip()
    seen = video.decode(data)
    axis, zero = video.axis(data)
    assert zero == 0 and axis.shape == (3, 2)
    for (begin, end), rows in zip(axis, seen.spread, strict=True):
        times = seen.times[rows[rows >= 0]]
        assert times[0] == pytest.approx(begin, abs=2e-3) and times[-1] == pytest.approx(end - 1 / 15, abs=2e-3)
    np.testing.assert_allclose(axis, [[0, 2], [52 / 15, 82 / 15], [7, 9]], atol=1e-3)


@pytest.mark.parametrize("form", ["matroska", "mp4"])
@pytest.mark.parametrize("late", [0.0, 1.0])
def test_a_tone_is_heard_in_the_window_in_which_it_sounds(form, late):
    track = timeline.decode(clip(form, late=late), stream="sound")
    loud = [np.flatnonzero(np.abs(sound) > 0.2) for sound in track.sounds]
    assert [len(places) > 0 for places in loud] == [False, True, False]
    begin = track.windows[1, 0]
    assert loud[1][0] / 16_000 == pytest.approx(4.0 - begin, abs=0.07)  # the codec's own delay is 64 ms
    assert loud[1][-1] / 16_000 == pytest.approx(5.0 - begin, abs=0.07)
    assert len(track.sounds[0]) == pytest.approx(16_000 * (2.0 - late), abs=1100) and track.words == ("", "", "")


@pytest.mark.parametrize("form", ["matroska", "mp4"])
def test_words_of_the_text_track_are_read_in_their_window(form):
    track = timeline.decode(clip(form), stream="words")
    assert track.words == ("before", "红色 lamp second line", "") and not any(map(len, track.sounds))


def test_cues_of_the_catalogue_take_the_place_of_a_track():
    assert timeline.decode(clip(words=False), stream="words", cues=SRT).words == (
        "before", "红色 lamp second line", "",
    )  # fmt: skip
    assert [words for _, _, words in timeline.spoken(SRT.replace("\n", "\r\n"))] == [
        "before", "红色 lamp second line", "between",
    ]  # fmt: skip
    assert list(timeline.spoken("WEBVTT\n\nno cue\n\n00:05.000 --> 00:01.000\nbackwards\n")) == []
    assert len(CUES) == 3


def test_what_a_clip_lacks_has_a_reason():
    silent = clip(sound=False, words=False)
    for stream, code in (("sound", "no_audio_stream"), ("words", "no_subtitles")):
        with pytest.raises(MediaError) as caught:
            timeline.decode(silent, stream=stream)
        assert caught.value.code == code
    with pytest.raises(MediaError) as caught:
        timeline.decode(b"no clip at all", stream="sound")
    assert caught.value.code == "unknown_type"


def test_it_crosses_from_the_confined_child_unchanged():
    data = clip()
    for stream in ("sound", "words"):
        here, there = timeline.decode(data, stream=stream), bounded.decode("timeline", data, stream=stream)
        np.testing.assert_array_equal(here.windows, there.windows)
        assert here.words == there.words
        for a, b in zip(here.sounds, there.sounds, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="no track"):
        timeline.unpack({"words": ["a"], "sizes": [3]}, [np.zeros((1, 2)), np.zeros(2, np.float32)])
