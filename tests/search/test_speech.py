"""Spoken queries: real and made-up speech finds its thing; what is no speech is refused."""

from __future__ import annotations

import ctypes
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from fusionrec.errors import DataRejected, IntegrityError
from fusionrec.search import speech
from fusionrec.search.keyword import Keywords
from fusionrec.search.query import Query
from fusionrec.search.words import tokens
from tests.search.conftest import Shop

STAMPS = Path("/usr/share/tuxpaint/stamps")
SAID = [
    ("I am looking for a mug for a camping trip.", 0),
    ("A bright lamp for the office desk, please.", 2),
    ("Show me a toy train for a child's birthday.", 4),
    ("I would like a warm blanket for the winter.", 5),
]


@pytest.fixture(scope="module")
def transcriber() -> speech.Transcriber:
    return speech.Transcriber()


def wav(sound: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format="WAV")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def voice():
    """text -> the bytes of a WAV file, by eSpeak NG (the extra `voice`)."""
    loader = pytest.importorskip("espeakng_loader", reason="the extra `voice` is not installed (GPL-3, tests only)")
    library = ctypes.CDLL(str(loader.get_library_path()))
    retrieval, punctuation, utf8 = 2, 0, 1  # AUDIO_OUTPUT_SYNCHRONOUS and friends of speak_lib.h
    rate = library.espeak_Initialize(retrieval, 0, str(loader.get_data_path()).encode(), 0)
    assert rate > 0
    library.espeak_SetVoiceByName(b"en-us")
    library.espeak_SetParameter(1, 140, 0)  # words a minute
    parts: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def take(samples, n, _events):
        if samples and n:
            parts.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0

    library.espeak_SetSynthCallback(take)

    def say(text: str) -> bytes:
        parts.clear()
        data = text.encode()
        assert library.espeak_Synth(data, len(data) + 1, 0, 1, punctuation, utf8, None, None) == 0
        library.espeak_Synchronize()
        return wav(np.concatenate(parts), rate)

    say.keep = take  # the callback must live as long as the library may call it
    return say


@pytest.mark.parametrize("text, at", SAID)
def test_a_spoken_sentence_finds_its_product(shop: Shop, voice, text: str, at: int) -> None:
    answer = shop.index.search(Query(audio=voice(text)), 3)
    assert answer.heard is not None
    said, heard = set(tokens(text)), set(tokens(answer.heard))
    assert len(said & heard) >= 0.6 * len(said), answer.heard  # a machine's voice is a hard test
    assert answer.hits[0].item_id == f"en-{at}"


def test_speech_and_words_are_one_query(shop: Shop, voice) -> None:
    answer = shop.index.search(Query(text="马克杯", audio=voice(SAID[0][0])), 3)
    assert {hit.item_id for hit in answer.hits[:2]} == {"en-0", "zh-0"}


def test_what_users_asked_aloud_are_words_of_theirs(voice, tmp_path: Path, transcriber: speech.Transcriber) -> None:
    """The stage words, with a query that is a sound: it counts by what was heard in it."""
    from fusionrec.embeddings.store import Store
    from fusionrec.search.query import encoded_texts
    from fusionrec.stages import words
    from tests.stages.test_words import project, section

    sound = voice(SAID[0][0])
    paths = project(tmp_path, sounds=(None, None, "mug.wav"))
    (tmp_path / "raw" / "mug.wav").write_bytes(sound)
    assert words.run(section(), paths).counts == {"words": 5, "users": 3, "query": 2, "review": 2, "spoken": 1}
    at = pl.read_parquet(paths.words / "words.parquet")["kind"].to_list().index("spoken")
    heard = transcriber.words(speech.decoded(sound))
    vectors, _ = encoded_texts(section().modalities["text"], [heard], Store(paths.store))
    np.testing.assert_array_equal(np.load(paths.words / "vectors.npy")[at], vectors[0])


@pytest.mark.slow
def test_real_voices_are_understood_and_find_their_picture(transcriber: speech.Transcriber) -> None:
    """Single words, spoken by people: every third of the clips of Tux Paint, found by name among all its stamps."""
    clips = [c for c in sorted(STAMPS.rglob("*_desc.ogg")) if named(c).is_file()][::3]
    if not clips:
        pytest.skip("the Debian package tuxpaint-stamps-default is not installed")
    names = sorted(STAMPS.rglob("*.txt"))
    index = Keywords([first_line(name) for name in names])
    right = 0
    for clip in clips:
        scores = index.scores(transcriber.words(speech.decoded(clip.read_bytes())))
        mine = scores[names.index(named(clip))]
        right += bool(mine > 0 and (scores > mine).sum() < 5)
    assert len(clips) >= 20
    assert right / len(clips) >= 0.4  # by chance 5 in 950


def named(clip: Path) -> Path:
    return clip.with_name(clip.name.replace("_desc.ogg", ".txt"))


def first_line(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").splitlines()[0]


@pytest.mark.parametrize("kind", ["noise", "tone", "steps"])
def test_what_is_no_speech_is_not_made_up(transcriber: speech.Transcriber, kind: str) -> None:
    at = np.arange(4 * 16_000) / 16_000
    sound = {
        "noise": np.random.default_rng(0).normal(0, 0.1, len(at)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * at),
        "steps": 0.3 * np.sin(2 * np.pi * 220 * 2 ** (np.floor(at * 3) / 12) * at),
    }[kind]
    assert transcriber.words(sound.astype(np.float32)) == ""


def test_a_sound_without_speech_is_refused(shop: Shop) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 32_000).astype(np.float32)
    with pytest.raises(DataRejected, match="hum.wav: no speech was heard; expected an English sentence"):
        shop.index.search(Query(audio=wav(noise, 16_000), audio_name="hum.wav"))


@pytest.mark.parametrize(
    "data, code",
    [(b"", "unknown_type"), (b"no sound", "unknown_type"), (wav(np.zeros(8_000), 8_000), "silent"),
     (wav(np.ones(9_000) * 0.1, 8_000)[:-9_000], "truncated")],
)  # fmt: skip
def test_a_sound_that_cannot_be_used_is_refused_with_its_reason(shop: Shop, data: bytes, code: str) -> None:
    with pytest.raises(DataRejected, match=rf"the sound: .*\({code}\)"):
        shop.index.search(Query(audio=data))


def test_weights_that_differ_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {**speech.WEIGHTS.files, "model/vocabulary.txt": "0" * 64}
    monkeypatch.setattr(speech, "WEIGHTS", type(speech.WEIGHTS)(speech.WEIGHTS.package, "x==1", changed))
    with pytest.raises(IntegrityError, match="it is not loaded"):
        speech.Transcriber()
