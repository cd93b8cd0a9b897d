"""Texts: any encoder or decoder of transformers, pooled over its tokens.

Mean and CLS pooling: Reimers and Gurevych, "Sentence-BERT", arXiv 1908.10084; the last token of a decoder: Wang et al.,
"Improving Text Embeddings with Large Language Models", arXiv 2401.00368. Of an encoder-decoder the encoder is used.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.batches import by_length, filled
from fusionrec.encoders.forward import Forward, Precision, each
from fusionrec.encoders.hub import Weights
from fusionrec.encoders.pretrained import CONFIG, TOKENIZER, network, processor, staged
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import ConfigError
from fusionrec.types import Float32

if TYPE_CHECKING:
    from torch import Tensor

TYPES = {
    "albert", "bart", "bert", "bloom", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
    "eurobert", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "mbart",
    "mistral", "modernbert", "mpnet", "mt5", "nomic_bert", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3",
    "roberta", "smollm3", "t5", "xlm-roberta", "xlm-roberta-xl",
}  # fmt: skip
SHIFTED = {"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
"""Their positions begin behind the pad token's id, so that a text has that many fewer."""
STEP = 2  # sequence lengths are padded up to a multiple of this
BUDGET = 1024  # tokens in a batch, padding included


class TransformersText(EncoderSpec):
    """``pooling``: the mean over the tokens, the first (``cls``) or the ``last`` one. A text longer than ``max_tokens``
    is read in up to ``windows`` pieces that share ``overlap`` tokens; its vector is their mean, each weighted by its
    number of the text's tokens. The prefix of the ``role`` stands before every piece."""

    accepts: ClassVar[Accepts] = "text"
    kind: Literal["transformers_text"] = "transformers_text"
    weights: Weights
    pooling: Literal["mean", "cls", "last"] = "mean"
    passage_prefix: str = Field("", description="an instruction before the texts of items, as 'passage: '")
    query_prefix: str = Field("", description="an instruction before what is searched for, as 'query: '")
    role: Literal["passage", "query"] = "passage"
    max_tokens: int = Field(256, ge=8, le=32_768)
    overlap: int = Field(32, ge=0)
    windows: int = Field(4, ge=1, le=256, description="1: longer texts are cut")
    normalize: bool = True
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _windows_move_on(self) -> TransformersText:
        if self.overlap > self.max_tokens // 2:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of max_tokens ({self.max_tokens})")
        return self

    @property
    def prefix(self) -> str:
        return self.passage_prefix if self.role == "passage" else self.query_prefix

    def fingerprint(self) -> str:
        return fingerprint(
            self.kind,
            weights=self.weights.digest([CONFIG, *TOKENIZER]),
            pooling=self.pooling,
            prefix=repr(self.prefix),
            windows=(self.max_tokens, self.overlap, self.windows),
            normalize=self.normalize,
            precision=self.precision,
            version=2,
        )

    def build(self) -> Encoder:
        return TransformersTextEncoder(self)

    def for_queries(self) -> TransformersText:
        """With ``query_prefix`` in the place of ``passage_prefix``."""
        return self.model_copy(update={"role": "query"})


class TransformersTextEncoder(Encoder):
    """Batches hold texts of similar length. Padding stands behind the text, so that a decoder's tokens, which look back
    only, never see it."""

    chunk = 256

    def __init__(self, spec: TransformersText) -> None:
        self.spec, self.tokenizing = spec, threading.Lock()  # the library's tokenizers bear one caller at a time
        with staged(spec.weights.verified([CONFIG, *TOKENIZER]), TYPES) as (folder, kind):
            self.tokenizer = processor(folder, "AutoTokenizer")
            model = network(folder, "AutoModel", optional=["pooler"])
        if not self.tokenizer.is_fast:
            raise ConfigError(f"weights: {spec.weights} has no tokenizer.json, which says where a text's tokens lie")
        config = model.config
        self.model = model.get_encoder() if config.is_encoder_decoder else model
        self.pad = next((i for i in (config.pad_token_id, self.tokenizer.pad_token_id) if i is not None), 0)
        self._check_length(config, kind)
        self.forward = Forward(self.model, self._pooled, spec.precision)
        self.dim = self.forward(*filled([[self.pad]], STEP, self.pad)).shape[1]
        self.before, self.after = self._frame()
        room = spec.max_tokens - len(self.before) - len(self.after) - len(self._tokens(spec.prefix)[0])
        if room <= spec.overlap:
            raise ConfigError(
                f"max_tokens {spec.max_tokens} leaves {room} tokens for the text beside prefix and special tokens, "
                f"expected more than the overlap {spec.overlap}"
            )

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n strings -> (n, dim) float32, L2-normalised unless ``normalize`` is false."""
        pieces, owner, weight = [], [], []
        with self.tokenizing:
            for row, text in enumerate(batch):
                for ids, count in self.pieces(text.encode("utf-8", "replace").decode("utf-8")):
                    pieces.append(ids)
                    owner.append(row)
                    weight.append(count)
        batches = by_length([len(p) for p in pieces], STEP, self.forward.rows(BUDGET))
        blocks = each(lambda part: self.forward(*filled([pieces[r] for r in part[0]], part[1], self.pad)), batches)
        vectors = np.empty((len(pieces), self.dim), np.float32)
        for (rows, _), block in zip(batches, blocks, strict=True):
            vectors[rows] = block
        share = np.array(weight) / np.bincount(owner, weights=weight)[owner]
        out = np.zeros((len(batch), self.dim), np.float32)
        np.add.at(out, owner, vectors * share[:, None].astype(np.float32))
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12) if self.spec.normalize else out

    def pieces(self, text: str) -> list[tuple[list[int], int]]:
        """(token ids of a window with prefix and special tokens, how many of them are the text's own)."""
        spec = self.spec
        ids, ends = self._tokens(spec.prefix + text)
        bare = len(spec.prefix.rstrip())  # a token may hold the space behind the prefix and the word after it
        head = sum(end <= bare for end in ends) if bare else 0
        prefix, body = ids[:head], ids[head:]
        room = spec.max_tokens - len(self.before) - len(self.after) - len(prefix)
        step = room - spec.overlap
        count = min(1 + max(-(-(len(body) - room) // step), 0), spec.windows)
        cut = [body[n * step : n * step + room] for n in range(count)]
        return [([*self.before, *prefix, *part, *self.after] or [self.pad], max(len(part), 1)) for part in cut]

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """(ids without special tokens, the place in the text where each ends)."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return list(found["input_ids"]), [end for _, end in found["offset_mapping"]]

    def _frame(self) -> tuple[list[int], list[int]]:
        """Special tokens that the tokenizer sets before and after a text."""
        bare = self._tokens("a")[0]
        whole = list(self.tokenizer("a")["input_ids"])
        at = next((n for n in range(len(whole)) if bare and whole[n : n + len(bare)] == bare), None)
        if at is None:
            raise ConfigError(
                f"weights: the tokenizer of {self.spec.weights} makes {bare} of 'a', and {whole} with special tokens; "
                "expected the same tokens between them"
            )
        return whole[:at], whole[at + len(bare) :]

    def _check_length(self, config: Any, kind: str) -> None:
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        if most and kind in SHIFTED:
            most -= (config.pad_token_id or 0) + 1
        if most and kind not in ("t5", "mt5") and -(-self.spec.max_tokens // STEP) * STEP > most:
            raise ConfigError(
                f"max_tokens {self.spec.max_tokens} is more than {self.spec.weights} can read; expected at most "
                f"{most // STEP * STEP}"
            )

    def _pooled(self, model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
        """(n, T) and (n, T) -> (n, dim)."""
        import torch

        hidden: Tensor = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
        if self.spec.pooling == "cls":
            return hidden[:, 0]
        if self.spec.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        weight = mask.unsqueeze(-1).float()
        return (hidden * weight).sum(1) / weight.sum(1)
