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


VISION = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64}


def vision(folder: Path, kind: str) -> Path:
    """A model of pictures (28 pixels a side, patches of 7) as its library saves it, the text towers included."""
    import torch
    import transformers as t

    torch.manual_seed(5)
    sizes = {**VISION, "image_size": 28, "patch_size": 7}
    text = {**VISION, "hidden_size": 36, "vocab_size": 40, "max_position_embeddings": 11}
    square = {"height": 28, "width": 28}
    crop = {"size": {"shortest_edge": 28}, "crop_size": square}
    dino = {k: v for k, v in sizes.items() if k != "intermediate_size"}
    model, processor = {
        "clip": lambda: (
            t.CLIPModel(t.CLIPConfig(
                text_config=text, vision_config={**sizes, "projection_dim": 20}, projection_dim=20
            )),
            t.CLIPImageProcessor(**crop),
        ),
        "siglip": lambda: (
            t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=sizes)), t.SiglipImageProcessor(size=square)
        ),
        "clip_vision_model": lambda: (t.CLIPVisionModel(t.CLIPVisionConfig(**sizes)), t.CLIPImageProcessor(**crop)),
        "vit": lambda: (t.ViTForImageClassification(t.ViTConfig(**sizes)), t.ViTImageProcessor(size=square)),
        "dinov2": lambda: (t.Dinov2Model(t.Dinov2Config(**dino)), t.BitImageProcessor(**crop)),
        "swin": lambda: (
            t.SwinModel(t.SwinConfig(
                image_size=28, patch_size=2, embed_dim=12, depths=[1, 1], num_heads=[2, 3], window_size=7
            )),
            t.ViTImageProcessor(size=square),
        ),
        "convnext": lambda: (
            t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])),
            t.ConvNextImageProcessor(size={"shortest_edge": 32}),
        ),
    }[kind]()  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def transformers_image(folder: Path) -> dict[str, Any]:
    return {"kind": "transformers_image", "weights": {"path": str(vision(folder, "clip"))}}


def sound(folder: Path, kind: str) -> Path:
    """A model of sounds as its library saves it."""
    import torch
    import transformers as t

    torch.manual_seed(6)
    waves = {
        **VISION, "conv_dim": [8, 8, 8, 8, 8, 8, 8], "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    }  # fmt: skip
    htsat = {
        "hidden_size": 32, "patch_embeds_hidden_size": 4, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
        "projection_dim": 24,
    }  # fmt: skip
    model, features = {
        "audio-spectrogram-transformer": lambda: (
            t.ASTModel(t.ASTConfig(**VISION, max_length=200, num_mel_bins=32)),
            t.ASTFeatureExtractor(max_length=200, num_mel_bins=32),
        ),
        "clap": lambda: (
            t.ClapModel(t.ClapConfig(
                text_config={**VISION, "vocab_size": 40}, audio_config=htsat, projection_dim=24
            )),
            t.ClapFeatureExtractor(truncation="rand_trunc"),
        ),
        "wav2vec2": lambda: (t.Wav2Vec2Model(t.Wav2Vec2Config(**waves)), t.Wav2Vec2FeatureExtractor()),
        "hubert": lambda: (t.HubertModel(t.HubertConfig(**waves)), t.Wav2Vec2FeatureExtractor()),
        "wavlm": lambda: (t.WavLMModel(t.WavLMConfig(**waves)), t.Wav2Vec2FeatureExtractor()),
        "whisper": lambda: (
            t.WhisperModel(t.WhisperConfig(
                vocab_size=40, d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=40,
                decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=40, pad_token_id=1,
                bos_token_id=1, eos_token_id=1, decoder_start_token_id=1,
            )),
            t.WhisperFeatureExtractor(),
        ),
    }[kind]()  # fmt: skip
    model.save_pretrained(folder)
    features.save_pretrained(folder)
    return folder


def transformers_audio(folder: Path) -> dict[str, Any]:
    return {"kind": "transformers_audio", "weights": {"path": str(sound(folder, "wav2vec2"))}, "seconds": 3}


def video(folder: Path, kind: str, old: bool = False) -> Path:
    """A model of clips as its library saves it; ``old``: as the hub's repositories of before video processors."""
    import torch
    import transformers as t

    torch.manual_seed(7)
    sizes = {**VISION, "image_size": 32, "patch_size": 16}
    model = {
        "videomae": lambda: t.VideoMAEForVideoClassification(t.VideoMAEConfig(**sizes, num_frames=6)),
        "timesformer": lambda: t.TimesformerModel(t.TimesformerConfig(**sizes, num_frames=5)),
    }[kind]()
    model.save_pretrained(folder)
    names = {"videomae": "VideoMAEVideoProcessor", "timesformer": "TimesformerVideoProcessor"}
    reader = getattr(t, "VideoMAEImageProcessor" if old else names[kind])
    seen = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    reader(**seen, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]).save_pretrained(folder)
    return folder


def transformers_video(folder: Path) -> dict[str, Any]:
    return {"kind": "transformers_video", "weights": {"path": str(video(folder, "videomae"))}}


def torchvision_video(folder: Path, name: str = "mc3_18", **settings: Any) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file
    from torchvision import models

    torch.manual_seed(8)
    model = models.get_model(name, weights=None, **settings)
    save_file(model.state_dict(), folder / "model.safetensors")
    return {"kind": "torchvision_video", "model": name, "weights": {"path": str(folder / "model.safetensors")}}


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "timm_image": timm_image,
    "torchvision_video": torchvision_video,
    "transformers_audio": transformers_audio,
    "transformers_image": transformers_image,
    "transformers_text": transformers_text,
    "transformers_video": transformers_video,
}
"""kind -> what writes a small model of it into a folder and says its section."""
