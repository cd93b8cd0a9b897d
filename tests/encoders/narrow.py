"""Programs that run short of memory for real: ``python -m tests.encoders.narrow NAME`` in a process of its own, whose
address space is limited once everything is loaded. Each prints what it found as JSON."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from fusionrec.embeddings.shards import Shard, encoded
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.encoders.forward import Forward, OutOfMemory
from fusionrec.modalities.base import Modality, ModalityRows
from tests.embeddings.conftest import sha

UNIT = 256 << 18  # float32 numbers in 256 MB: what each number of the input takes while it is computed on


def greedy(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(n, T) -> (n, 3), by way of n * T * 256 MB (never written, so never backed by real memory)."""
    room = torch.empty(*x.shape, UNIT)
    room[:, :, 0] = x
    return model(room[:, :, 0].sum(1, keepdim=True))


def network() -> torch.nn.Module:
    torch.manual_seed(2)
    return torch.nn.Linear(1, 3)


def leave(units: float) -> None:
    """From here on the process may take this many times 256 MB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(units * UNIT * 4)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def rows() -> dict[str, Any]:
    x = torch.arange(5, dtype=torch.float32)[:, None]
    free = Forward(network(), greedy)
    wanted = free(x).tolist()
    tight = Forward(network(), greedy)
    tight(x[:1])
    leave(2.5)
    found, counts = [], [tight.halved]
    for _ in range(2):
        found.append(tight(x).tolist())
        counts.append(tight.halved)
    try:
        tight(torch.ones(1, 4))
        error = ""
    except OutOfMemory as short:
        error = str(short)
    small = tight(x[3:4]).tolist()
    return {
        "wanted": wanted,
        "found": found,
        "counts": counts,
        "unlimited": free.halved,
        "error": error,
        "small": small,
    }


class Words(EncoderSpec):
    """A text of T letters takes T units of memory."""

    accepts: ClassVar = "text"
    kind: Literal["words"] = "words"

    def build(self) -> Encoder:
        return WordsEncoder()


class WordsEncoder(Encoder):
    at_once = 1  # so that what is halved is counted for one shard alone
    dim, chunk = 3, 4

    def __init__(self) -> None:
        self.forward = Forward(network(), greedy)

    def encode(self, batch: Any) -> np.ndarray:
        return self.forward(torch.tensor([[ord(c) for c in t.ljust(max(map(len, batch)), "\0")] for t in batch]))


class Texts(Modality):
    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def rows(self, items: Any, root: Path) -> ModalityRows:
        present = np.ones(len(self.texts), bool)
        return ModalityRows(present, [sha(t) for t in self.texts], np.zeros(len(self.texts), np.int16))

    def load(self, index: int) -> str:
        return self.texts[index]


def engine() -> dict[str, Any]:
    """The first shard holds a text of nine letters, the second none that is too large."""
    first, second = ["a", "b", "ninechars", "bc", "d"], ["e", "f", "g"]
    texts = [*first, *second]
    keys = [sha(t) for t in texts]
    shards = [Shard(tuple(keys[:5]), tuple(range(5))), Shard(tuple(keys[5:]), (5, 6, 7))]
    with torch.inference_mode():
        wanted = {t: network()(torch.tensor([[float(sum(map(ord, t)))]]))[0].tolist() for t in texts}
    leave(2.5)
    out = list(encoded(Texts(texts), Words(), shards))
    name = dict(zip(keys, texts, strict=True))
    return {
        "wanted": wanted,
        "found": {name[c]: v.tolist() for s in out for c, v in zip(s.contents, s.vectors, strict=True)},
        "reasons": [{name[c]: r for c, r in s.reasons.items()} for s in out],
        "halved": [s.halved for s in out],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"rows": rows, "engine": engine}[sys.argv[1]]()))
