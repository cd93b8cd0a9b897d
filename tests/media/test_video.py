"""Every kind of broken clip is refused with its code in bounded time; what is sound gives the frames it should."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionrec.media import bounded, video
from fusionrec.media.base import MediaError
from fusionrec.media.video import DENSE, LONG_SIDE, SIDE, SPREAD, Clip, decode, sniff
from tests.media import clips

TWO_SECONDS = clips.encoded(clips.ramp(30))


def code_of(data: bytes, **limits: float) -> str:
    start = time.monotonic()
    with pytest.raises(MediaError) as caught:
        decode(data, **limits)  # type: ignore[arg-type]
    assert time.monotonic() - start < 5
    return caught.value.code


def numbers(clip: Clip, frames: int) -> list[int]:
    """Which frames of a ramp were kept, by their brightness."""
    grey = clip.frames.mean(axis=(1, 2, 3))
    return [int(np.abs([clips.brightness(k, frames) - g for k in range(frames)]).argmin()) for g in grey]


@pytest.mark.parametrize("form", clips.FORMS)
def test_every_allowed_type_is_told_by_its_bytes_and_decoded(form):
    data = clips.encoded(clips.ramp(30), form=form)
    clip = decode(data)
    expected = {"mp4": "MP4", "mov": "MP4", "mkv": "MATROSKA", "webm": "MATROSKA", "avi": "AVI"}[form]
    assert sniff(data) == expected and video.describe(data, clip) == f"{expected.lower()} 64x48, 2.0 s"
    assert clip.frames.shape[1:] == (48, 64, 3) and clip.frames.dtype == np.uint8
    assert (clip.width, clip.height) == (64, 48) and clip.duration == pytest.approx(2.0, abs=0.07)
    assert np.abs(np.diff(clip.frames.mean(axis=(1, 2, 3)))).min() > 3 and (np.diff(clip.times) > 0).all()


def test_a_short_clip_is_one_window_of_eight_spread_and_sixteen_consecutive_frames():
    clip = decode(TWO_SECONDS)
    kept = np.array(numbers(clip, 30))
    assert kept[clip.spread[0]].tolist() == [0, 4, 8, 12, 17, 21, 25, 29]
    assert kept[clip.dense[0]].tolist() == list(range(7, 23))
    np.testing.assert_allclose(clip.times, kept / 15, atol=1e-6)
    assert clip.spread.shape == (1, SPREAD) and clip.dense.shape == (1, DENSE)


def test_consecutive_frames_are_a_fifteenth_of_a_second_apart_where_the_clip_has_more():
    clip = decode(clips.encoded(clips.ramp(90), fps=30))  # 3 s
    assert len(clip.spread) == 2
    for window in clip.dense:
        np.testing.assert_allclose(np.diff(clip.times[window]), 1 / 15, atol=1e-3)


@pytest.mark.parametrize("frames, spread, dense", [(1, 1, 1), (2, 2, 2), (5, 5, 5), (11, 8, 11), (16, 8, 16)])
def test_shorter_clips_give_what_they_have(frames, spread, dense):
    clip = decode(clips.encoded(clips.ramp(frames)))
    assert ((clip.spread >= 0).sum(), (clip.dense >= 0).sum()) == (spread, dense)
    assert (clip.spread[0, spread:] == -1).all() and clip.dense[0, :dense].tolist() == sorted(set(range(dense)))
    assert clip.duration == pytest.approx(frames / 15, abs=0.01)


@pytest.mark.parametrize("gop", ["8", "1000"])
def test_windows_of_a_long_clip_are_spread_over_it(gop):
    data = clips.encoded(clips.ramp(200), g=gop)
    clip = decode(data, windows=4)
    kept = np.round(clip.times * 15)
    assert kept[clip.spread[:, 0]].tolist() == [0, 57, 113, 170]
    assert kept[clip.spread[:, -1]].tolist() == [29, 86, 142, 199]
    np.testing.assert_allclose(numbers(clip, 200), kept, atol=1)  # neighbours are one grey level apart
    assert len(decode(data, windows=1).spread) == 1
    assert decode(data, max_seconds=4.0).duration == pytest.approx(4.0, abs=0.2)


def test_a_window_that_is_too_far_from_a_key_frame_is_left_out(monkeypatch):
    data = clips.encoded(clips.ramp(200), g="1000")
    monkeypatch.setattr(video, "MAX_FRAMES", 120)
    assert len(decode(data).spread) == 2  # the third would need all 200
    monkeypatch.setattr(video, "MAX_FRAMES", 12)
    clip = decode(data)
    assert len(clip.spread) == 1 and numbers(clip, 200)[-1] <= 12


def test_frames_are_scaled_down_never_up_and_turned_upright():
    wide = np.zeros((360, 1280, 3), np.uint8)
    wide[:, :640, 0] = 255  # the left half is red
    clip = decode(clips.encoded([wide] * 3))
    assert clip.frames.shape[1:3] == (90, LONG_SIDE) and (clip.width, clip.height) == (1280, 360)
    assert decode(clips.encoded([wide[:, :640]] * 3)).frames.shape[1:3] == (SIDE, 284)
    turned = decode(clips.encoded([wide[:, 320:960]] * 3, rotated=90)).frames[0].astype(int)
    assert turned.shape == (284, SIDE, 3)  # counter-clockwise: left becomes bottom
    assert turned[-20:, :, 0].mean() > 200 and turned[:20, :, 0].mean() < 50


@pytest.mark.parametrize("share", [0.9, 0.5, 0.01])
@pytest.mark.parametrize(
    "form, options", [("mp4", {}), ("mp4", {"movflags": "frag_keyframe+empty_moov", "g": "4"}), ("avi", {})]
)
def test_a_file_that_was_cut_off_is_truncated_wherever_its_index_is(share, form, options):
    rng = np.random.default_rng(0)
    data = clips.encoded(list(rng.integers(0, 255, (20, 48, 64, 3), np.uint8)), form=form, **options)
    assert code_of(data[: int(len(data) * share)]) == "truncated"


def test_a_finished_matroska_that_was_cut_off_is_truncated():
    data = clips.encoded(clips.ramp(30), form="mkv")
    assert {code_of(data[: int(len(data) * share)]) for share in (0.9, 0.5)} == {"truncated"}


@pytest.mark.parametrize(
    "data, code",
    [
        (b"", "unknown_type"),
        (b"\0\0\0\x18ftyp", "truncated"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "unknown_type"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "unknown_type"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "unknown_type"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "unknown_type"),
        (b"<html>502 Bad Gateway</html>", "unknown_type"),
        (b"GIF89a" + b"\0" * 99, "unknown_type"),
        (TWO_SECONDS[:32] + b"\0" * 400, "truncated"),
        (b"\x1a\x45\xdf\xa3\x93B\x82\x88matroska" + b"\0" * 40, "truncated"),
        (clips.song(), "no_video_stream"),
        (clips.patched(TWO_SECONDS, b"stsd", 12, int.from_bytes(b"xyz1")), "unsupported_codec"),
    ],
)
def test_what_is_no_sound_clip_is_refused_with_its_code(data, code):
    assert code_of(data) == code


def test_caps_on_bytes_and_pixels():
    assert code_of(TWO_SECONDS, max_bytes=1000) == "too_many_bytes"
    assert code_of(TWO_SECONDS, max_pixels=48 * 64 - 1) == "too_many_pixels"
    assert len(decode(TWO_SECONDS, max_pixels=48 * 64).frames)


def test_a_header_that_claims_ten_hours_is_not_believed():
    hours = 10 * 3600 * 1000
    data = clips.patched(clips.patched(TWO_SECONDS, b"mvhd", 16, hours), b"tkhd", 20, hours)
    clip = decode(data)
    assert clip.duration == pytest.approx(2.0, abs=0.1) and len(clip.spread) == 1


@pytest.mark.parametrize(
    "box, offset, value",
    [
        (b"mdhd", 12, 0),  # ticks per second
        (b"mdhd", 12, 1),
        (b"mvhd", 12, 0),
        (b"stts", 12, 0),  # ticks per frame: no time passes
        (b"stts", 12, 2**31 - 1),
        (b"stts", 8, 2**31 - 1),  # frames that take one duration
        (b"stsz", 8, 2**31 - 1),  # frames
        (b"stsz", 4, 1),  # all of one byte
        (b"stsc", 4, 2**31 - 1),
        (b"stss", 4, 2**31 - 1),
        (b"elst", 4, 2**31 - 1),
    ],
)
def test_absurd_numbers_in_the_index_end_in_a_clip_or_a_code(box, offset, value):
    start = time.monotonic()
    tracemalloc.start()
    with suppress(MediaError):
        clip = bounded.decode("video", clips.patched(TWO_SECONDS, box, offset, value))
        assert 1 <= len(clip.frames) <= SPREAD + DENSE and np.isfinite(clip.duration)
    assert tracemalloc.get_traced_memory()[1] < 20e6 and time.monotonic() - start < 15
    tracemalloc.stop()


def test_an_avi_of_zero_frames_a_second():
    data = clips.encoded(clips.ramp(20), form="avi")
    at = data.index(b"strh") + 8 + 20
    for scale, rate in ((0, 0), (1, 0), (0, 15)):
        with suppress(MediaError):
            changed = data[:at] + scale.to_bytes(4, "little") + rate.to_bytes(4, "little") + data[at + 8 :]
            assert len(decode(changed).frames) >= 10


def test_no_request_leaves_the_machine_for_a_playlist_whatever_it_is_called():
    with socket.create_server(("127.0.0.1", 0)) as server:
        hits: list[object] = []

        def listen() -> None:
            with suppress(OSError):
                while True:
                    hits.append(server.accept())

        threading.Thread(target=listen, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n".encode()
        ftyp = TWO_SECONDS[: int.from_bytes(TWO_SECONDS[:4], "big")]
        concat = f"ffconcat version 1.0\nfile '{url}'\n".encode()
        assert code_of(playlist) == code_of(concat) == "unknown_type"
        assert code_of(ftyp + playlist) == code_of(ftyp + concat) == "truncated"
        # An MP4 whose samples are said to lie elsewhere: the reference is not followed.
        elsewhere = TWO_SECONDS.replace(b"url \0\0\0\x01", b"url \0\0\0\0")
        assert elsewhere != TWO_SECONDS
        with suppress(MediaError):
            decode(elsewhere)
        time.sleep(0.2)
        assert hits == []


def test_a_clip_crosses_between_processes_unchanged():
    here, there = decode(TWO_SECONDS, windows=2), bounded.decode("video", TWO_SECONDS, windows=2)
    for name in ("frames", "times", "spread", "dense"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    assert (there.duration, there.width, there.height) == (here.duration, 64, 48)
    meta, arrays = video.pack(here)
    for number, wrong in ((0, arrays[0][1:]), (1, arrays[1][1:]), (2, arrays[2] + 99), (3, arrays[3][:, 1:])):
        with pytest.raises(ValueError, match="no clip"):
            video.unpack(meta, [*arrays[:number], wrong, *arrays[number + 1 :]])


def test_all_packets_damaged_is_undecodable_and_a_few_are_passed_over():
    rng = np.random.default_rng(1)
    data = clips.encoded(list(rng.integers(0, 255, (30, 48, 64, 3), np.uint8)), form="mov", g="1")
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4

    def damaged(share: float) -> bytes:
        size = int((end - start) * share)
        return data[:start] + b"\xff" * size + data[start + size :]

    assert code_of(damaged(1.0)) == "undecodable"
    clip = decode(damaged(0.1))
    assert 15 <= len(clip.frames) < len(decode(data).frames)
    assert clip.spread.max() == clip.dense.max(initial=len(clip.frames) - 1) == len(clip.frames) - 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(clips.FORMS)), st.integers(0, 10**6), st.integers(0, 255), st.floats(0.3, 1))
def test_damaged_bytes_end_in_a_clip_or_a_media_error(form, place, byte, kept):
    data = bytearray(_CLIPS.setdefault(form, clips.encoded(clips.ramp(12), form=form)))
    data[place % len(data)] = byte
    with suppress(MediaError):  # any other exception fails the test
        assert decode(bytes(data if kept > 0.6 else data[: int(len(data) * kept)])).frames.ndim == 4


_CLIPS: dict[str, bytes] = {}
