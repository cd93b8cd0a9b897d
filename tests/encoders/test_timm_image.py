"""Backbones of timm: the vector is the library's own, every weight comes from the file, and only from there."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image

from fusionrec.encoders import efficientnet_lite0
from fusionrec.encoders.timm_image import TimmImage
from fusionrec.errors import ConfigError, IntegrityError
from tests.encoders.small import timm_image

SMALL = ["test_vit.r160_in1k", "test_resnet.r160_in1k", "test_efficientnet.r160_in1k", "test_convnext.r160_in1k"]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    noise = [Image.fromarray(rng.integers(0, 256, (n, 67, 3), dtype=np.uint8)) for n in (41, 67, 130, 18, 99, 70, 71)]
    return [Image.fromarray(load_sample_image("flower.jpg")), Image.fromarray(load_sample_image("china.jpg")), *noise]


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return timm_image(tmp_path_factory.mktemp("vit"))


def reference(folder, pictures):
    """What timm itself gives: its own loader, its own transform, one picture at a time."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return np.concatenate([model(transform(p)[None]).numpy() for p in pictures])


@pytest.mark.parametrize("name", SMALL)
def test_vectors_are_those_of_timm(name, tmp_path, pictures):
    encoder = TimmImage.model_validate(timm_image(tmp_path, name)).build()
    wanted = reference(tmp_path, pictures)
    assert encoder.dim == wanted.shape[1]
    together = encoder.encode(pictures)
    np.testing.assert_allclose(together, wanted, atol=2e-5)
    np.testing.assert_allclose(encoder.encode(pictures[::-1])[::-1], together, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "efficientnet_b0.ra_in1k", "vit_small_patch16_dinov3.lvd1689m"])
def test_vectors_of_models_of_full_size_are_those_of_timm(name, tmp_path, pictures):
    encoder = TimmImage.model_validate(timm_image(tmp_path, name)).build()
    wanted = reference(tmp_path, pictures[:2])
    np.testing.assert_allclose(encoder.encode(pictures[:2]), wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_real_weights_of_efficientnet_lite0_give_the_vectors_of_its_encoder(tmp_path, pictures):
    """Another way to real weights: timm cuts 0.875 of the picture and scales once, the encoder cuts all of it; so the
    pictures are scaled first such that both see the same pixels."""
    folder = tmp_path / "lite0"
    folder.mkdir()
    save_file(efficientnet_lite0.network().state_dict(), folder / "model.safetensors")
    section = {"kind": "timm_image", "model": "tf_efficientnet_lite0", "weights": {"path": str(folder)}}
    seen = []
    for picture in pictures[:3]:
        square = Image.fromarray(efficientnet_lite0.square(picture, 224))
        wide = Image.new("RGB", (256, 256))
        wide.paste(square, (16, 16))  # 256 * .875 = 224: the transform cuts this out and scales nothing
        seen.append(wide)
    wanted = efficientnet_lite0.EfficientNetLite0(features="final").build().encode(pictures[:3]) * 1280**0.5
    np.testing.assert_allclose(TimmImage.model_validate(section).build().encode(seen), wanted, atol=1e-4)


def test_several_pictures_of_an_item_are_averaged(vit, pictures):
    encoder = TimmImage.model_validate(vit).build()
    a, b, c = encoder.encode(pictures[:3])
    np.testing.assert_allclose(encoder.encode([tuple(pictures[:2]), pictures[2]]), [(a + b) / 2, c], atol=1e-6)


def test_a_strip_does_not_grow_into_a_huge_picture(vit):
    """Its short side scaled to 160 would make it 1.2 gigapixels."""
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1, 50_000, 3), dtype=np.uint8))
    middle = strip.crop((24_998, 0, 25_002, 1))
    encoder = TimmImage.model_validate(vit).build()
    np.testing.assert_array_equal(encoder.encode([strip]), encoder.encode([middle]))


def test_one_file_is_enough_and_a_head_of_any_size_is_dropped(tmp_path, vit, pictures):
    folder = tmp_path / "five"
    timm_image(folder, num_classes=5)
    alone = {**vit, "weights": {"path": str(folder / "model.safetensors")}}
    np.testing.assert_allclose(
        TimmImage.model_validate(alone).build().encode(pictures[:2]), reference(folder, pictures[:2]), atol=2e-5
    )
    headless = tmp_path / "headless"
    timm_image(headless, num_classes=0)
    alone = {**vit, "weights": {"path": str(headless / "model.safetensors")}}
    assert TimmImage.model_validate(alone).build().encode(pictures[:1]).shape == (1, 64)


def test_the_config_beside_the_weights_says_how_pictures_are_seen(tmp_path, vit, pictures):
    timm_image(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.3, 0.2], "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    other = TimmImage.model_validate({**vit, "weights": {"path": str(tmp_path)}})
    assert other.fingerprint() != TimmImage.model_validate(vit).fingerprint()
    np.testing.assert_allclose(other.build().encode(pictures[:2]), reference(tmp_path, pictures[:2]), atol=2e-5)


def test_weights_that_lack_one_tensor_or_are_another_models_are_refused(tmp_path, vit):
    timm_image(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["blocks.1.attn.qkv.weight"]
    save_file(state, tmp_path / "model.safetensors")
    section = {**vit, "weights": {"path": str(tmp_path)}}
    with pytest.raises(IntegrityError, match=r"do not fit test_vit.r160_in1k: .*blocks\.1\.attn\.qkv\.weight"):
        TimmImage.model_validate(section).build()
    with pytest.raises(ConfigError, match="is of a test_vit, expected one of test_resnet"):
        TimmImage.model_validate({**section, "model": "test_resnet.r160_in1k"}).build()
    with pytest.raises(ConfigError, match="no model 'test_vitt'; did you mean 'test_vit"):
        TimmImage.model_validate({**section, "model": "test_vitt"}).build()


@pytest.mark.parametrize("weights", [None, {}, {"hub": "timm/x"}, {"hub": "timm/x", "revision": "main"}])
def test_weights_are_named_exactly_or_refused(weights):
    with pytest.raises(ValidationError, match=r"weights|revision|exactly one"):
        TimmImage.model_validate({"kind": "timm_image", "model": "vgg16.tv_in1k", "weights": weights})


@pytest.mark.parametrize("model", ["hf-hub:timm/vgg16", "local-dir:/tmp/x", "../x"])
def test_a_models_name_is_no_place(model, vit):
    with pytest.raises(ValidationError, match="model"):
        TimmImage.model_validate({**vit, "model": model})


def test_a_config_cannot_name_other_files_or_arguments(tmp_path, vit, pictures):
    """Places inside of config.json are not followed, arguments of the model's class are not passed on."""
    timm_image(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {"file": "/nowhere/evil.pth", "url": "file:///nowhere/evil.pth", "custom_load": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    section = {**vit, "weights": {"path": str(tmp_path)}}
    np.testing.assert_array_equal(
        TimmImage.model_validate(section).build().encode(pictures[:2]),
        TimmImage.model_validate(vit).build().encode(pictures[:2]),
    )
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": {"norm_layer": "evil.Layer"}}))
    with pytest.raises(ConfigError, match="model_args norm_layer; only img_size"):
        TimmImage.model_validate(section).build()


def test_bf16_stays_close(vit, pictures):
    full = TimmImage.model_validate(vit).build().encode(pictures[:3])
    half = TimmImage.model_validate({**vit, "precision": "bf16"}).build().encode(pictures[:3])
    assert ((half * full).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)).min() > 0.99


def test_a_fingerprint_needs_neither_torch_nor_timm(vit):
    import subprocess

    code = (
        "import json, sys; from fusionrec.encoders.timm_image import TimmImage\n"
        "print(TimmImage.model_validate(json.loads(sys.argv[1])).fingerprint(), {'torch', 'timm'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code, json.dumps(vit)], capture_output=True, text=True, check=True)
    assert out.stdout.split() == [TimmImage.model_validate(vit).fingerprint(), "set()"]
