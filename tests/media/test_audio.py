"""X10: what every kind of sound file becomes; nothing but the bytes given is ever opened."""

from __future__ import annotations

import io
import re
import socket
import struct
import threading
import tracemalloc
from functools import cache
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionrec.media import audio, bounded
from fusionrec.media.audio import RATE, decode, silent, sniff
from fusionrec.media.base import MediaError

SECONDS = 1.5


def tone(rate: int = 44_100, seconds: float = SECONDS, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """(n,) float64."""
    return level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def encoded(samples: np.ndarray, rate: int = 44_100, form: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def muxed(form: str, codec: str, rate: int = 44_100, sound: bool = True, picture: bool = False) -> bytes:
    """A container that libsndfile does not read, written by FFmpeg."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        video = container.add_stream("mpeg4", rate=10) if picture else None
        stream = container.add_stream(codec, rate=rate, layout="mono") if sound else None
        if video:
            video.width, video.height, video.pix_fmt = 32, 48, "yuv420p"
            for _ in range(5):
                picture_of = av.VideoFrame.from_ndarray(np.zeros((48, 32, 3), np.uint8), format="rgb24")
                container.mux(video.encode(picture_of))
            container.mux(video.encode(None))
        if stream:
            frame = av.AudioFrame.from_ndarray(tone(rate).astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            resampler = av.AudioResampler(stream.format, "mono", rate)
            for ready in resampler.resample(frame) + resampler.resample(None):
                container.mux(stream.encode(ready))
            container.mux(stream.encode(None))
    return out.getvalue()


class Pipe(io.RawIOBase):
    """Takes bytes and cannot go back to write a length, as a pipe."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)
        return len(data)


def streamed(form: str, codec: str, rate: int = 44_100) -> bytes:
    """What a streaming encoder leaves: no length in the header."""
    import av

    pipe = Pipe()
    with av.open(pipe, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        samples = (tone(rate) * 32767).astype(np.int16)
        for at in range(0, len(samples), 4_096):
            frame = av.AudioFrame.from_ndarray(samples[None, at : at + 4_096], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return bytes(pipe.taken)


def frequency(sound: np.ndarray) -> float:
    """Hz of the strongest partial."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * RATE / len(sound))


def code(data: bytes, **settings: Any) -> str:
    with pytest.raises(MediaError) as caught:
        decode(data, **settings)
    assert "0x" not in str(caught.value)  # a memory address would make reports differ
    return caught.value.code


READABLE = {
    "wav": ("WAV", lambda: encoded(tone())),
    "wav 24 bit": ("WAV", lambda: encoded(tone(), subtype="PCM_24")),
    "wav 8 bit": ("WAV", lambda: encoded(tone(), subtype="PCM_U8")),
    "wav float": ("WAV", lambda: encoded(tone(), subtype="FLOAT")),
    "wav double": ("WAV", lambda: encoded(tone(), subtype="DOUBLE")),
    "wav 8 kHz": ("WAV", lambda: encoded(tone(8_000), 8_000)),
    "wav 192 kHz": ("WAV", lambda: encoded(tone(192_000), 192_000)),
    "wav 16 kHz": ("WAV", lambda: encoded(tone(RATE), RATE)),
    "wav rf64": ("WAV", lambda: encoded(tone(), form="RF64")),
    "flac": ("FLAC", lambda: encoded(tone(), form="FLAC")),
    "ogg vorbis": ("OGG", lambda: encoded(tone(), form="OGG", subtype="VORBIS")),
    "ogg opus": ("OGG", lambda: encoded(tone(48_000), 48_000, form="OGG", subtype="OPUS")),
    "mp3": ("MP3", lambda: encoded(tone(), form="MP3")),
    "aiff": ("AIFF", lambda: encoded(tone(), form="AIFF")),
    "m4a": ("MP4", lambda: muxed("mp4", "aac")),
    "mp4 with picture": ("MP4", lambda: muxed("mp4", "aac", picture=True)),
    "webm opus": ("MATROSKA", lambda: muxed("webm", "libopus", 48_000)),
    "adts": ("AAC", lambda: muxed("adts", "aac")),
    "avi with picture": ("AVI", lambda: muxed("avi", "libmp3lame", picture=True)),
    "flac from a pipe": ("FLAC", lambda: streamed("flac", "flac")),
    "wav from a pipe": ("WAV", lambda: streamed("wav", "pcm_s16le")),
    "mp3 in wav": ("WAV", lambda: muxed("wav", "libmp3lame")),
    "mp3 with id3": ("MP3", lambda: muxed("mp3", "libmp3lame")),
}


@pytest.mark.parametrize("name", READABLE)
def test_a_tone_comes_back_as_the_same_tone(name: str) -> None:
    kind, make = READABLE[name]
    data = make()
    assert sniff(data) == kind
    sound = decode(data)
    assert sound.dtype == np.float32
    assert sound.ndim == 1
    assert abs(len(sound) / RATE - SECONDS) < 0.1  # lossy formats add some delay
    assert frequency(sound) == pytest.approx(440, abs=1.5)
    middle = sound[RATE // 4 : -RATE // 4]
    assert float(np.sqrt((middle.astype(float) ** 2).mean())) == pytest.approx(
        0.5 / np.sqrt(2), rel=0.06
    )  # LAME encodes at 0.95
    np.testing.assert_array_equal(decode(data), sound)


def test_nothing_is_changed_where_nothing_has_to_be() -> None:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 4_001).astype(np.float32)
    np.testing.assert_array_equal(decode(encoded(samples, RATE, subtype="FLOAT")), samples)


def test_channels_are_averaged_and_resampling_keeps_what_16_khz_can_hold() -> None:
    left, right = tone(hertz=440), tone(hertz=12_000)  # the second lies above half of 16 kHz
    sound = decode(encoded(np.stack([left, right], axis=1)))
    middle = sound[2_000:-2_000].astype(float)
    assert float(np.sqrt((middle**2).mean())) == pytest.approx(0.25 / np.sqrt(2), rel=0.01)
    assert frequency(sound) == pytest.approx(440, abs=1.5)


def test_blocks_leave_no_seam() -> None:
    """Resampling block by block gives what resampling at once gives."""
    import soxr

    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 200_001).astype(np.float32)
    assert len(samples) > 3 * audio.BLOCK
    whole = soxr.resample(samples, 44_100, RATE, quality="HQ")
    sound = decode(encoded(samples, subtype="FLOAT"))
    assert abs(len(sound) - len(whole)) <= 1
    n = min(len(sound), len(whole))
    np.testing.assert_allclose(sound[:n], whole[:n], atol=1e-6)


def test_the_peak_is_at_most_one() -> None:
    loud = decode(encoded(tone(level=250.0), subtype="FLOAT"))
    quiet = decode(encoded(tone(level=0.25), subtype="FLOAT"))
    assert float(np.abs(loud).max()) == pytest.approx(1.0)
    np.testing.assert_allclose(loud * 0.25, quiet * float(np.abs(loud).max()), atol=2e-3)


def test_silence_is_finite_zeros_and_says_so() -> None:
    sound = decode(encoded(np.zeros((7_000, 2))))
    assert not sound.any()
    assert silent(sound)
    assert silent(decode(encoded(np.random.default_rng(0).uniform(-1, 1, 9_000) * 2.0**-15)))  # the last bit's dither
    assert not silent(decode(encoded(tone(level=0.001))))


def with_float(value: float) -> bytes:
    samples = tone().astype(np.float32)
    samples[50_000] = value
    return encoded(samples, subtype="FLOAT")


def wave(frames: int, data: bytes, rate: int = RATE) -> bytes:
    """A 16-bit mono WAV whose header promises ``frames``."""
    size = 2 * frames
    return (
        struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
        + struct.pack("<4sI", b"data", size)
        + data
    )


def ten_hours_of_flac() -> bytes:
    """A FLAC of 1.5 s whose header promises ten hours (STREAMINFO: 36 bits of total samples at byte 21)."""
    data = bytearray(encoded(tone(), form="FLAC"))
    total = 36_000 * 44_100
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(data)


REFUSED = {
    "empty file": ("unknown_type", lambda: b""),
    "text": ("unknown_type", lambda: b"once upon a time"),
    "utf-16 text": ("unknown_type", lambda: "hello there".encode("utf-16")),
    "playlist": ("unknown_type", lambda: b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"),
    "picture": ("unknown_type", lambda: b"\xff\xd8\xff\xe0" + bytes(99)),
    "webp": ("unknown_type", lambda: b"RIFF\0\0\0\0WEBPVP8 "),
    "zero length": ("empty_audio", lambda: encoded(np.zeros(0))),
    "one sample": ("empty_audio", lambda: encoded(np.ones(1))),
    "header only": ("truncated", lambda: wave(RATE, b"")),
    "half a wav": ("truncated", lambda: encoded(tone())[:60_000]),
    "half an aiff": ("truncated", lambda: encoded(tone(), form="AIFF")[:60_000]),
    "half a flac": ("truncated", lambda: (d := encoded(tone(), form="FLAC"))[: len(d) // 2]),
    "half an ogg": ("truncated", lambda: (d := encoded(tone(seconds=9), form="OGG", subtype="VORBIS"))[: len(d) // 2]),
    "half an m4a": ("truncated", lambda: (d := muxed("mp4", "aac"))[: len(d) // 2]),
    "m4a, 1 %": ("truncated", lambda: (d := muxed("mp4", "aac"))[: len(d) // 100 + 40]),
    "ten hours promised": ("truncated", ten_hours_of_flac),
    "noise after the magic": ("undecodable", lambda: b"fLaC" + np.random.default_rng(0).bytes(5_000)),
    "noise in matroska": ("undecodable", lambda: b"\x1a\x45\xdf\xa3" + np.random.default_rng(0).bytes(5_000)),
    "an id3 tag alone": ("undecodable", lambda: b"ID3\x04\0\0\0\0\0\0" + bytes(4_000)),
    "NaN": ("not_finite", lambda: with_float(np.nan)),
    "infinite": ("not_finite", lambda: with_float(-np.inf)),
    "a double beyond float": ("not_finite", lambda: encoded(np.full(20_000, 1e200), subtype="DOUBLE")),
    "32 channels": ("too_many_channels", lambda: encoded(np.tile(tone()[:, None], 32))),
    "1 kHz": ("bad_sample_rate", lambda: encoded(tone(1_000, hertz=50), 1_000)),
    "500 kHz": ("bad_sample_rate", lambda: encoded(tone(500_000, seconds=0.1), 500_000)),
    "picture without sound": ("no_audio_stream", lambda: muxed("mp4", "aac", sound=False, picture=True)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_has_a_code(name: str) -> None:
    expected, make = REFUSED[name]
    assert code(make()) == expected


def test_a_truncated_file_is_used_where_only_its_unused_end_is_missing() -> None:
    """What is asked for was decoded in full: ten hours are promised, one second is heard."""
    assert len(decode(ten_hours_of_flac(), max_seconds=1.0)) == RATE


def test_streamed_lengths_are_no_promises() -> None:
    data = bytearray(encoded(tone()))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # what a writer into a pipe leaves there
    assert frequency(decode(bytes(data))) == pytest.approx(440, abs=1.5)


def test_a_long_file_costs_the_memory_of_what_is_heard() -> None:
    """Ten minutes of 48 kHz stereo are 230 MB as float32; two seconds are heard."""
    data = encoded(np.zeros((48_000 * 600, 2), np.int16), 48_000, form="FLAC")
    tracemalloc.start()
    sound = decode(data, max_seconds=2.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(sound) == 2 * RATE
    assert peak < 8 * 2**20 + len(data)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
def test_no_more_than_max_seconds_is_returned(rate: int) -> None:
    found = len(decode(encoded(tone(rate), rate), max_seconds=0.7))
    assert found in (11_199, 11_200)  # 0.7 s; the resampler may end one sample early


def test_the_cap_on_channels_is_a_setting() -> None:
    data = encoded(np.tile(tone()[:, None], 6))
    assert frequency(decode(data)) == pytest.approx(440, abs=1.5)
    assert code(data, max_channels=5) == "too_many_channels"


def test_a_reference_to_a_host_is_never_followed() -> None:
    """A playlist, also one behind a magic number that we do accept, opens no connection."""
    hits = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def listen() -> None:
            try:
                server.accept()
                hits.append(1)
            except TimeoutError:
                pass

        port = server.getsockname()[1]
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.mp3\n".encode()
        thread = threading.Thread(target=listen)
        thread.start()
        for data in (playlist, b"ID3\x04\0\0\0\0\0\0" + playlist, b"\0\0\0\x10ftypisom\0\0\0\0" + playlist):
            code(data)
        thread.join()
    assert not hits


@pytest.mark.parametrize("name", READABLE)
def test_a_confined_process_decodes_the_same(name: str) -> None:
    """It may open no file, so every decoder must have been made ready before."""
    data = READABLE[name][1]()
    np.testing.assert_array_equal(bounded.decode("audio", data, max_seconds=1.0), decode(data, max_seconds=1.0))
    assert bounded.probe("audio", data).startswith(READABLE[name][0].lower() + ", 1.")


def test_silence_is_refused_where_a_use_is_asked_for() -> None:
    with pytest.raises(MediaError) as caught:
        bounded.probe("audio", encoded(np.zeros(9_000)))
    assert caught.value.code == "silent"


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(["wav", "flac", "ogg vorbis", "mp3", "aiff", "m4a", "webm opus", "adts"]))
def test_damaged_bytes_give_a_sound_or_a_code(data: st.DataObject, name: str) -> None:
    damaged = bytearray(sample(name))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    code_or_none, sound = None, np.zeros(1)
    try:
        sound = bounded.decode("audio", bytes(damaged))
    except MediaError as error:
        code_or_none = error.code
    assert code_or_none is None or re.fullmatch("[a-z_]+", code_or_none)
    assert len(sound)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1


@cache
def sample(name: str) -> bytes:
    return READABLE[name][1]()


def test_importing_the_module_imports_no_decoder() -> None:
    import subprocess
    import sys

    look = "import sys, fusionrec.media.audio; print({'av', 'soundfile', 'soxr', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout == "set()\n"
