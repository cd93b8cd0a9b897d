"""Small models with random weights, written as their library writes them: what the encoders of hubs are tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def timm_image(folder: Path, name: str = "test_vit.r160_in1k", **arguments: Any) -> dict[str, Any]:
    """A model of timm -> the section of params.yaml that names it."""
    import timm
    import torch

    torch.manual_seed(3)
    model = timm.create_model(name, **arguments)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return {"kind": "timm_image", "model": name, "weights": {"path": str(folder)}}


CORPUS = ["a red cup with a handle", "the quick brown fox jumps over the lazy dog", "query: passage: a cup of tea"] * 9


def tokenizer(folder: Path, special: bool = True, pad: bool = True) -> Any:
    """A byte-level BPE tokenizer, with [CLS] and [SEP] around a text (``special``) or without, written to a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["[PAD]", "[CLS]", "[SEP]"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(CORPUS, trainer)
    if special:
        made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    out = PreTrainedTokenizerFast(tokenizer_object=made, **({"pad_token": "[PAD]"} if pad else {}))
    out.save_pretrained(folder)
    return out


def bert(folder: Path, **settings: Any) -> Path:
    """A BERT of two layers, 48 wide, that reads 96 tokens."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer(folder)), max_position_embeddings=96, **sizes, **settings)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def transformers_text(folder: Path) -> dict[str, Any]:
    section: dict[str, Any] = {"kind": "transformers_text", "weights": {"path": str(bert(folder))}, "max_tokens": 64}
    return {**section, "passage_prefix": "passage: ", "query_prefix": "query: "}


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "timm_image": timm_image,
    "transformers_text": transformers_text,
}
"""kind -> what writes a small model of it into a folder and says its section."""
