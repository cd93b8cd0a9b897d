"""Adding an encoder, a fusion or a retriever is one new file and one registry line, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENCODER = '''
"""A text's length and how many of its letters are vowels."""
from typing import ClassVar, Literal
import hashlib
import numpy as np
from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec

class Vowels(EncoderSpec):
    accepts: ClassVar[Accepts] = "text"
    kind: Literal["vowels"] = "vowels"
    scale: float = 1.0
    def fingerprint(self):
        return hashlib.sha256(f"vowels {self.scale}".encode()).hexdigest()
    def build(self):
        return VowelsEncoder(self)

class VowelsEncoder(Encoder):
    dim = 2
    def __init__(self, spec):
        self.scale = spec.scale
    def encode(self, batch):
        return np.array([[len(t), sum(c in "aeiou" for c in t)] for t in batch], np.float32) * self.scale
'''
FUSION = '''
"""The sum of the first ``dim`` values of each present modality."""
from typing import Literal
from fusionrec.fusion.base import FusionSpec

class FirstValues(FusionSpec):
    kind: Literal["first_values"] = "first_values"
    def build(self, dims, dim):
        import torch
        names, width = sorted(dims), dim or min(dims.values())
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.dim = width
            def forward(self, x, mask):
                out = torch.zeros(len(mask), width)
                for column, name in enumerate(names):
                    value = torch.where(mask[:, [column]], x[name], torch.zeros_like(x[name]))[:, :width]
                    out[:, : value.shape[1]] = out[:, : value.shape[1]] + value
                return out
        return Net()
'''
RETRIEVER = '''
"""The same order for everybody: by row number, last first."""
from typing import Literal
import numpy as np
from fusionrec.recommenders.base import Retriever, RetrieverSpec

class LastRow(RetrieverSpec):
    kind: Literal["last_row"] = "last_row"
    def build(self, fusion=None):
        return LastRowRetriever()

class LastRowRetriever(Retriever):
    retrieval = "dense"
    cold_user = True
    def _fit(self, train, valid, items, seed, watch):
        self.value = np.arange(len(items), dtype=np.float32)
    def _score(self, requests):
        return self.scores_at_fit(np.tile(self.value, (len(requests), 1)))
    def arrays(self):
        return {"value": self.value}
    def _restore(self, arrays):
        self.value = arrays["value"]
'''
PROGRAM = """
import json, sys
import numpy as np
from scipy import sparse
from fusionrec import config
from fusionrec.types import Interactions, ItemSet, Requests

p = config.parse({
    "source": {"kind": "folder", "root": "shop"}, "split": {"kind": "leave_last_out"},
    "modalities": {"text": {"kind": "text", "encoder": {"kind": "vowels", "scale": 2.0}}},
    "train": {"retriever": {"kind": "two_tower", "dim": 3, "training": {"epochs": 1}},
              "fusion": {"kind": "first_values"},
              "baselines": [{"kind": "last_row"}]},
})
texts = ["aeiou", "xyz", "a b", "hello"]
vectors = p.modalities["text"].encoder.build().encode(texts)
items = ItemSet(tuple("abcd"), {"text": vectors}, {"text": np.ones(4, bool)}, {"text": np.zeros(4, np.int16)})
train = Interactions(np.array([0, 0, 1], np.int32), np.array([0, 1, 2], np.int32), None, 2, 4)
hybrid = p.train.retriever.build(p.train.fusion)
hybrid.fit(train, train.select(np.zeros(3, bool)), items)
last = p.train.baselines[0].build(p.train.fusion)
last.fit(train, train.select(np.zeros(3, bool)), items)
ask = Requests(np.array([1]), train.matrix()[[1]])
json.dump({
    "vectors": vectors.tolist(), "fusion": type(hybrid.fusion).__name__,
    "last": last.recommend(ask, 3)[0].tolist(), "hybrid": int((hybrid.recommend(ask, 3)[0] >= 0).sum()),
    "where": config.__file__,
}, sys.stdout)
"""


def add(package: Path, registry: str, name: str, text: str) -> None:
    """The new file, and one line in the registry."""
    (package / registry / f"{name}.py").write_text(text, encoding="utf-8")
    path = package / registry / "__init__.py"
    before = path.read_text(encoding="utf-8").splitlines()
    at = next(n for n, line in enumerate(before) if line.strip() == "[") + 1
    after = [*before[:at], f'            "{name}",', *before[at:]]
    path.write_text("\n".join(after) + "\n", encoding="utf-8")
    assert len(after) == len(before) + 1


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library."""
    source = Path(__file__).resolve().parents[2] / "src" / "fusionrec"
    target = tmp_path_factory.mktemp("extension") / "fusionrec"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def run(package: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=package.parent, capture_output=True, text=True
    )


def test_three_toy_components_work_after_one_file_and_one_line_each(package: Path) -> None:
    before = run(package)
    assert before.returncode != 0
    assert "unknown kind 'vowels'" in before.stderr
    assert "unknown kind 'first_values'" in before.stderr
    assert "unknown kind 'last_row'" in before.stderr

    add(package, "encoders", "vowels", ENCODER)
    add(package, "fusion", "first_values", FUSION)
    add(package, "recommenders", "last_row", RETRIEVER)

    after = run(package)
    assert after.returncode == 0, after.stderr[-2000:]
    told = json.loads(after.stdout)
    assert told["where"].startswith(str(package))  # the copy ran, not the checkout
    assert told["vectors"] == [[10.0, 10.0], [6.0, 0.0], [6.0, 2.0], [10.0, 4.0]]
    assert told["fusion"] == "FirstValues"
    assert told["last"] == [[3, 1, 0]]  # item 2 is seen
    assert told["hybrid"] == 3
