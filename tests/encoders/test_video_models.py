"""Clips through transformers and torchvision: vectors of the libraries themselves, and which frames are looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torchvision import models

from fusionrec.encoders.forward import each
from fusionrec.encoders.torchvision_video import TorchvisionVideo
from fusionrec.encoders.transformers_video import TransformersVideo, moments
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.media.video import Clip
from tests.encoders import small


def clip(seed, count, windows=1, size=(40, 56)):
    """``count`` frames at 15 a second; every window sees all of them, 16 and 8 at most."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    spread, dense = (np.full((windows, n), -1, np.int16) for n in (8, 16))
    for w in range(windows):
        for table in (spread, dense):
            rows = np.unique(np.linspace(w, count - 1, min(table.shape[1], count - w)).astype(int))
            table[w, : len(rows)] = rows
    return Clip(frames, np.arange(count) / 15, spread, dense, count / 15, size[1], size[0])


CLIPS = [clip(1, 30), clip(2, 1), clip(3, 7), clip(4, 16, size=(24, 90)), clip(5, 2, size=(3, 7))]


def built(folder, **settings):
    section = {"kind": "transformers_video", "weights": {"path": str(folder)}, **settings}
    return TransformersVideo.model_validate(section).build()


def test_the_frames_next_to_evenly_spread_moments_worked_by_hand():
    """Frames at 0, .5, 1, 1.1, 1.2, 1.5 and 2 s (the last one belongs to no window). Five moments from 0 to 1.5:
    0, .375, .75, 1.125 and 1.5; the nearest are 0, .5, .5 (.75 lies in the middle: the earlier one), 1.1 and 1.5."""
    times = np.array([0, 0.5, 1, 1.1, 1.2, 1.5, 2])
    spread, dense = np.array([[0, 1, 2, 5, -1]], np.int16), np.array([[2, 3, 4, -1]], np.int16)
    made = Clip(np.zeros((7, 4, 6, 3), np.uint8), times, spread, dense, 2.0, 6, 4)
    assert moments(made, 0, 5) == [0, 1, 1, 3, 5]
    assert moments(made, 0, 1) == [0]


def reference(folder, name, frames):
    reader = transformers.VideoMAEImageProcessorPil.from_pretrained(folder)
    model = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = (
            model(**reader([list(frames)], input_data_format="channels_last", return_tensors="pt"))
            .last_hidden_state[0]
            .numpy()
        )
    return hidden[0] if name == "TimesformerModel" else hidden.mean(0)


@pytest.mark.parametrize(
    "kind, name, count", [("videomae", "VideoMAEModel", 6), ("timesformer", "TimesformerModel", 5)]
)
def test_vectors_are_those_of_transformers(kind, name, count, tmp_path):
    """The old processor, on Pillow, is what the models' pages show; the new one, on tensors, scales to within a grey
    level of it."""
    encoder = built(small.video(tmp_path, kind, old=True))
    assert encoder.dim == 48 and encoder.count == count
    wanted = np.stack([reference(tmp_path, name, c.frames[moments(c, 0, count)]) for c in CLIPS])
    together = encoder.encode(CLIPS)
    np.testing.assert_allclose(together, wanted, atol=0.02)
    np.testing.assert_array_equal(encoder.encode(CLIPS[::-1])[::-1], together)
    new = tmp_path / "new"
    np.testing.assert_array_equal(built(small.video(new, kind)).encode(CLIPS), together)


def test_windows_of_a_clip_are_averaged(tmp_path):
    encoder = built(small.video(tmp_path, "videomae"))
    both = clip(5, 20, windows=2)
    one, two = (
        Clip(both.frames, both.times, both.spread[w : w + 1], both.dense[w : w + 1], 1.3, 56, 40) for w in (0, 1)
    )
    np.testing.assert_allclose(encoder.encode([both])[0], encoder.encode([one, two]).mean(0), atol=1e-6)


def test_a_strip_of_a_clip_stays_small_and_what_the_model_demands_is_bounded(tmp_path):
    encoder = built(small.video(tmp_path, "videomae"))
    strip = clip(6, 3, size=(1, 320))
    rows = [moments(strip, 0, 6)]
    assert encoder._pixels(strip.frames[rows[0]]).shape == (1, 6, 3, 32, 32)
    cut = Clip(strip.frames[:, :, 158:162], strip.times, strip.spread, strip.dense, 0.2, 4, 1)
    np.testing.assert_array_equal(encoder.encode([strip]), encoder.encode([cut]))
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_frames": 6', '"num_frames": 600'))
    with pytest.raises(ConfigError):
        built(tmp_path)


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_vectors_are_those_of_torchvision(name, tmp_path):
    section = small.torchvision_video(tmp_path, name, num_classes=9)
    encoder = TorchvisionVideo.model_validate(section).build()
    model = models.get_model(name, weights=None, num_classes=9)
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    features = torch.nn.Sequential(*list(model.children())[:-1], torch.nn.Flatten()).eval()
    transform = models.get_model_weights(name).DEFAULT.transforms()
    clips = CLIPS[:1] if name == "r2plus1d_18" else CLIPS[:3]  # it is slow
    rows = [np.pad(c.dense[0][c.dense[0] >= 0], (0, 16 - (c.dense[0] >= 0).sum()), mode="edge") for c in clips]

    def alone(frames):
        with torch.inference_mode():
            return features(transform(torch.from_numpy(frames).permute(0, 3, 1, 2))[None])[0].numpy()

    # On one thread, as the encoder: torch scales pictures by another kernel, with other rounding, where it has several.
    wanted = np.stack(each(alone, [c.frames[r] for c, r in zip(clips, rows, strict=True)]))
    np.testing.assert_allclose(encoder.encode(clips), wanted, rtol=1e-5, atol=2e-6)


def test_weights_of_another_network_are_refused_and_a_classifier_is_not_missed(tmp_path):
    section = small.torchvision_video(tmp_path, "mc3_18")
    with pytest.raises(IntegrityError, match="does not fit r3d_18"):
        TorchvisionVideo.model_validate({**section, "model": "r3d_18"}).build()
    whole = TorchvisionVideo.model_validate(section).build().encode(CLIPS[:1])
    state = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(TorchvisionVideo.model_validate(section).build().encode(CLIPS[:1]), whole)
