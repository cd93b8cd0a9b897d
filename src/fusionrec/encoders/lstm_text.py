"""Text, learnt here: an LSTM over words and Chinese characters (Hochreiter and Schmidhuber 1997; both directions, the
mean of its states over the text).

Tokens are words in lower case and single Han, kana and Hangul characters, hashed into buckets (Weinberger et al.,
arXiv 0902.2206): there is no vocabulary to download or to keep, and every language is read. It knows nothing but the
catalogue: a word that no item of the training split has says next to nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from fusionrec.encoders.base import Accepts, Trainee
from fusionrec.encoders.learnt import Learning, LearntEncoderSpec, seeded
from fusionrec.encoders.sequences import mean_states, padded

if TYPE_CHECKING:
    from torch import Tensor, nn

_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
TOKEN = re.compile(rf"[{_SINGLE}]|[^\W{_SINGLE}]+|[^\w\s]")
NOTHING = 0  # the token of a text without tokens; also what stands behind the end of a shorter text


class LSTMText(LearntEncoderSpec):
    """``buckets``: into how many numbers tokens are hashed; ``max_tokens``: longer texts are cut."""

    accepts: ClassVar[Accepts] = "text"
    kind: Literal["lstm_text"] = "lstm_text"
    dim: PositiveInt = 64
    width: PositiveInt = Field(64, description="numbers of a token's vector")
    hidden: PositiveInt = Field(64, description="numbers of the LSTM's state, in each direction")
    buckets: int = Field(8192, ge=2)
    max_tokens: PositiveInt = 128
    dropout: float = Field(0.2, ge=0, lt=1, description="chance that a token is hidden in a step")
    learning: Learning = Learning()

    def facts(self) -> Mapping[str, object]:
        return {"max_tokens": self.max_tokens, "buckets": self.buckets, "version": 1}

    def start(self) -> Trainee:
        return LSTMTextTrainee(self)


def tokens(text: str, buckets: int, limit: int) -> np.ndarray:
    """(T,) int32 in [1, buckets), at most ``limit``; one :data:`NOTHING` where the text has no token."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    ids = [_bucket(found[0], buckets) for found in TOKEN.finditer(plain[: 64 * limit])][:limit]
    return np.array(ids or [NOTHING], np.int32)


@lru_cache(65536)
def _bucket(token: str, buckets: int) -> int:
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (buckets - 1)


class LSTMTextTrainee(Trainee):
    """Prepared: the tokens of a text (T,) int32."""

    work = 0.0  # a state waits for the one before it

    def __init__(self, spec: LSTMText) -> None:
        self.spec, self.dim = spec, spec.dim
        self.module = seeded(spec.learning.seed, lambda: _network(spec))

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return [tokens(text, self.spec.buckets, self.spec.max_tokens) for text in inputs]

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        import torch

        ids, lengths = padded(prepared)
        device = next(self.module.parameters()).device
        found: Tensor = self.module(torch.from_numpy(ids).long().to(device), torch.from_numpy(lengths))
        return found


def _network(spec: LSTMText) -> nn.Module:
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(spec.buckets, spec.width)
            nn.init.normal_(self.embed.weight, std=0.1)
            self.drop = nn.Dropout1d(spec.dropout)
            self.ahead, self.back = (nn.LSTM(spec.width, spec.hidden, batch_first=True) for _ in range(2))
            self.out = nn.Linear(spec.width + 2 * spec.hidden, spec.dim)

        def forward(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
            x_BTW = self.drop(self.embed(ids_BT))
            # The mean word beside the mean state: what a text names counts from the first step on.
            return self.out(mean_states(self.ahead, self.back, x_BTW, lengths_B))

    return Network()
