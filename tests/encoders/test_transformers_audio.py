"""Sounds through transformers: vectors of the library itself, windows of long sounds, and the real Whisper."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
import transformers
from safetensors.torch import save_file

from fusionrec.encoders import whisper
from fusionrec.encoders.sounds import at_rate, windows
from fusionrec.encoders.transformers_audio import TransformersAudio
from tests.encoders import small


def noise(seed, samples):
    return (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def built(folder, **settings):
    section = {"kind": "transformers_audio", "weights": {"path": str(folder)}, **settings}
    return TransformersAudio.model_validate(section).build()


def reference(folder, kind, sound):
    """What the whole model gives for one window, by the call of its documentation."""
    features = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if features.sampling_rate != 16_000:
        sound = soxr.resample(sound, 16_000, features.sampling_rate)
    given = features(sound, sampling_rate=features.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        if kind == "clap":
            return model.get_audio_features(**given).pooler_output[0].numpy()
        if kind == "audio-spectrogram-transformer":
            return model(**given).pooler_output[0].numpy()
        return model(given["input_values"]).last_hidden_state[0].numpy().mean(0)


@pytest.mark.parametrize("kind, dim", [
    ("audio-spectrogram-transformer", 48), ("clap", 24), ("wav2vec2", 48), ("hubert", 48), ("wavlm", 48),
])  # fmt: skip
def test_vectors_are_those_of_transformers(kind, dim, tmp_path):
    encoder = built(small.sound(tmp_path, kind))
    sounds = [noise(n, samples) for n, samples in enumerate((16_000, 9_000, 31_999, 20_011))]
    wanted = np.stack([reference(tmp_path, kind, s) for s in sounds])
    together = encoder.encode(sounds)
    assert encoder.dim == dim and wanted.shape == (4, dim)
    np.testing.assert_allclose(together, wanted, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(sounds[::-1])[::-1], together)


def test_windows_of_a_long_sound_are_weighted_by_their_length(tmp_path):
    """AST with 200 frames of 10 ms knows 2 s: 5.6 s are windows of 2, 2 and 1.6 s."""
    encoder = built(small.sound(tmp_path, "audio-spectrogram-transformer"))
    sound = noise(3, 89_600)
    parts = [encoder.encode([sound[a:b]])[0] for a, b in ((0, 32_000), (32_000, 64_000), (64_000, 89_600))]
    np.testing.assert_allclose(
        encoder.encode([sound])[0], (2 * parts[0] + 2 * parts[1] + 1.6 * parts[2]) / 5.6, atol=2e-6
    )
    cut = encoder.encode([sound[: 64_000 + 7_999]])[0]  # less than half a second at the end is left out
    np.testing.assert_allclose(cut, (parts[0] + parts[1]) / 2, atol=2e-6)


def test_wav2vec2_knows_no_limit_and_gets_one(tmp_path):
    small.sound(tmp_path, "wav2vec2")
    sound = noise(4, 40_000)
    a, b = (built(tmp_path, seconds=30).encode([part])[0] for part in (sound[:32_000], sound[32_000:]))
    np.testing.assert_allclose(built(tmp_path, seconds=2).encode([sound])[0], 0.8 * a + 0.2 * b, atol=2e-6)


def test_short_and_other_rates():
    assert [len(w) for w in windows(noise(0, 9), 32_000, 16_000)] == [8_000]
    assert [len(w) for w in windows(noise(0, 70_000), 32_000, 16_000)] == [32_000, 32_000]
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    up = at_rate(tone, 48_000)
    assert len(up) == 48_000 and up.dtype == np.float32
    wanted = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    np.testing.assert_allclose(up[2_000:-2_000], wanted[2_000:-2_000], atol=1e-3)
    assert at_rate(tone, 16_000) is tone


def test_the_real_whisper_read_through_this_encoder_gives_its_vectors(tmp_path):
    """The encoder of tiny.en, saved as transformers names it; there is no decoder, and none is missed."""
    config = transformers.WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, decoder_layers=1, vocab_size=40,
        pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1,
    )  # fmt: skip
    own = whisper.Whisper().build()
    state = {f"encoder.{k}": v.contiguous() for k, v in own.network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    sound = noise(5, 40_000)
    sound[10_000:20_000] = 0
    np.testing.assert_allclose(built(tmp_path).encode([sound]), own.encode([sound]), atol=2e-6)
