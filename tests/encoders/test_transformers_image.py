"""Pictures through transformers: vectors of the library itself, one picture at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image

from fusionrec.encoders.transformers_image import TransformersImage
from fusionrec.errors import ConfigError, IntegrityError
from tests.encoders import small


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    noise = [Image.fromarray(rng.integers(0, 256, (n, 67, 3), dtype=np.uint8)) for n in (41, 67, 130, 18, 99, 70, 71)]
    return [Image.fromarray(load_sample_image("flower.jpg")), Image.fromarray(load_sample_image("china.jpg")), *noise]


def built(folder, **settings):
    section = {"kind": "transformers_image", "weights": {"path": str(folder)}, **settings}
    return TransformersImage.model_validate(section).build()


def reference(folder, kind, picture):
    """What the whole model gives, text tower and all, by the call of its documentation."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = processor(images=picture, return_tensors="pt")
    with torch.inference_mode():
        if kind in ("clip", "siglip"):
            return model.get_image_features(**pixels).pooler_output[0].numpy()
        out = model(**pixels)
    cls = kind in ("vit", "dinov2")
    return (out.last_hidden_state[0, 0] if cls else out.pooler_output[0]).numpy()


@pytest.mark.parametrize("kind, dim", [
    ("clip", 20), ("siglip", 48), ("clip_vision_model", 48), ("vit", 48), ("dinov2", 48), ("swin", 24),
    ("convnext", 20),
])  # fmt: skip
def test_vectors_are_those_of_transformers(kind, dim, tmp_path, pictures):
    encoder = built(small.vision(tmp_path, kind))
    wanted = np.stack([reference(tmp_path, kind, p) for p in pictures])
    assert encoder.dim == dim and wanted.shape == (len(pictures), dim)
    together = encoder.encode(pictures)
    np.testing.assert_allclose(together, wanted, atol=5e-6)
    np.testing.assert_allclose(encoder.encode(pictures[::-1])[::-1], together, rtol=1e-4, atol=1e-6)


def test_several_pictures_are_averaged_and_a_strip_stays_small(tmp_path, pictures):
    encoder = built(small.vision(tmp_path, "clip"))
    a, b, c = encoder.encode(pictures[:3])
    np.testing.assert_allclose(encoder.encode([tuple(pictures[:2]), pictures[2]]), [(a + b) / 2, c], atol=1e-6)
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1, 9_000_000, 3), dtype=np.uint8))
    middle = strip.crop((4_499_998, 0, 4_500_002, 1))
    np.testing.assert_array_equal(encoder.encode([strip]), encoder.encode([middle]))


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "dinov2", "convnext"])
def test_rows_of_a_picture_three_pixels_high_are_not_taken_for_its_colours(kind, tmp_path):
    """The same picture with every pixel doubled, which scales down to about the same: not so if rows were colours."""
    pixels = np.zeros((3, 9, 3), np.uint8)
    pixels[..., 0] = 250
    low = Image.fromarray(pixels)
    high = Image.fromarray(np.repeat(np.repeat(pixels, 9, axis=0), 9, axis=1))
    encoder = built(small.vision(tmp_path, kind))
    np.testing.assert_allclose(encoder.encode([low]), encoder.encode([high]), atol=1e-4)


def test_what_makes_a_huge_picture_is_refused(tmp_path):
    small.vision(tmp_path, "siglip")
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | {"size": {"height": 28, "width": 2000}}))
    with pytest.raises(ConfigError, match="of a picture, expected"):
        built(tmp_path)


def test_a_tower_that_lacks_a_tensor_or_code_in_the_processor_is_refused(tmp_path):
    small.vision(tmp_path, "clip")
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="1 tensors are missing .visual_projection"):
        built(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings["auto_map"] = {"AutoImageProcessor": "evil.Processor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="'auto_map' names Python code"):
        built(tmp_path)


def test_a_text_model_is_no_model_of_pictures(tmp_path):
    with pytest.raises(ConfigError, match="found a model of type bert, expected one of clip"):
        built(small.bert(tmp_path))


def test_bf16_stays_close(tmp_path, pictures):
    small.vision(tmp_path, "vit")
    full, half = built(tmp_path).encode(pictures[:3]), built(tmp_path, precision="bf16").encode(pictures[:3])
    assert ((half * full).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)).min() > 0.99
