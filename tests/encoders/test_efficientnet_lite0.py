"""The picture encoder: right weights in the right places, and rows that depend on their picture alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from fusionrec.encoders.efficientnet_lite0 import FILE, SIDE, WEIGHTS, EfficientNetLite0, network
from fusionrec.media.image import square


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    noise = [Image.fromarray(rng.integers(0, 256, (41, 67, 3), dtype=np.uint8)) for _ in range(7)]
    return [Image.fromarray(load_sample_image("flower.jpg")), Image.fromarray(load_sample_image("china.jpg")), *noise]


@pytest.fixture(scope="module")
def model():
    return network()


def pixels(picture):
    return torch.from_numpy(square(picture, SIDE).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_every_weight_of_the_package_is_used_and_known_photos_are_recognised(model, pictures):
    """ImageNet has no dahlia, its nearest class is 985 daisy; the Chinese temple is one of three kinds of building."""
    state = torch.load(WEIGHTS.verified()[FILE], weights_only=True)
    assert sum(v.numel() for v in state.values()) == sum(v.numel() for v in model.state_dict().values())
    with torch.inference_mode():
        flower, china = (model(pixels(p)).softmax(1)[0] for p in pictures[:2])
    assert int(flower.argmax()) == 985
    assert int(china.argmax()) in {663, 698, 832}  # monastery, palace, stupa


def test_the_final_block_is_what_timm_pools(model, lite0, pictures):
    out = lite0.encode(pictures[:3])
    assert out.shape == (3, 1632) and lite0.dim == 1632
    with torch.inference_mode():
        maps = torch.cat([model.forward_features(pixels(p)) for p in pictures[:3]])
    np.testing.assert_allclose(out[:, :1280] * 1280**0.5, maps.mean((2, 3)).numpy(), atol=2e-5)


def test_the_middle_block_is_mean_and_deviation_of_three_stages(model, lite0, pictures):
    seen = {}
    hooks = [model.blocks[s].register_forward_hook(lambda _m, _i, o, s=s: seen.__setitem__(s, o)) for s in (1, 2, 4)]
    with torch.inference_mode():
        model(pixels(pictures[0]))
    for hook in hooks:
        hook.remove()
    wanted = np.concatenate(
        [part for s in (1, 2, 4) for part in (seen[s][0].numpy().mean((1, 2)), seen[s][0].numpy().std((1, 2)))]
    )
    np.testing.assert_allclose(lite0.encode(pictures[:1])[0, 1280:] * 352**0.5, wanted, atol=2e-5)


def test_rows_do_not_depend_on_the_batch(lite0, pictures):
    together = lite0.encode(pictures)  # 9 pictures: one full and one padded pass
    np.testing.assert_allclose(lite0.encode(pictures[::-1])[::-1], together, atol=1e-6)
    np.testing.assert_allclose(lite0.encode(pictures[4:5])[0], together[4], atol=1e-6)


def test_several_pictures_of_an_item_are_averaged(lite0, pictures):
    a, b, c = lite0.encode(pictures[:3])
    several = lite0.encode([(pictures[0], pictures[1]), pictures[2]])
    np.testing.assert_allclose(several, [(a + b) / 2, c], atol=1e-6)


def test_bf16_stays_close_and_final_is_the_first_block(lite0, pictures):
    full = lite0.encode(pictures[:2])
    final = EfficientNetLite0(features="final").build().encode(pictures[:2])
    np.testing.assert_allclose(final, full[:, :1280], atol=1e-6)
    half = EfficientNetLite0(precision="bf16").build().encode(pictures[:2])
    cosine = (half * full).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.99
