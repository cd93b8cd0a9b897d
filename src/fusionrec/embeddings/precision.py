"""Half precision only where it is as good: an encoder is compared with itself in float32 before its first vector."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fusionrec.embeddings.shards import EngineSpec, Shard, encoded
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import EncoderSpec
from fusionrec.encoders.forward import supported
from fusionrec.modalities.base import Modality

SAMPLE = 256
LEAST_MEAN, LEAST = 0.999, 0.995
"""Of the cosines between a content's vector in half precision and in float32: what the mean and what the smallest of
a sample must exceed."""


def settled(
    modality: Modality, missing: Mapping[str, int], spec: EncoderSpec, store: Store, engine: EngineSpec
) -> tuple[EncoderSpec, str]:
    """(``spec``, or the same encoder in float32 where the machine lacks the precision or the vectors differ too much;
    what is to be told about it).

    The verdict is kept in the store beside the vectors, before the first of them: it holds for all that follow, unless
    it came from fewer contents than there are now to judge by.
    """
    exact = spec.exact()
    if exact == spec or not missing:
        return spec, ""
    verdict = store.verdict(spec.fingerprint())
    if verdict is None or verdict["sample"] < SAMPLE <= len(missing):
        chosen = sorted(missing)[:SAMPLE]
        able, cosines = engine.compare(modality, spec, Shard(tuple(chosen), tuple(missing[c] for c in chosen)))
        if not able:
            return exact, f"{spec.half} is not what this machine computes fast: encoded in fp32"
        if not cosines:
            return spec, ""  # not one could be read
        verdict = {"sample": len(cosines), "mean": float(np.mean(cosines)), "least": float(min(cosines))}
        store.keep_verdict(spec.fingerprint(), verdict)
    told = f"cosine to fp32 {verdict['mean']:.5f}, at least {verdict['least']:.5f} ({verdict['sample']:.0f} contents)"
    if verdict["mean"] > LEAST_MEAN and verdict["least"] > LEAST:
        return spec, f"{spec.half}: {told}"
    wanted = f"expected a mean above {LEAST_MEAN} and none below {LEAST}"
    return exact, f"{spec.half} is not exact enough: {told}, {wanted}; encoded in fp32"


def compared(modality: Modality, spec: EncoderSpec, sample: Shard) -> tuple[bool, list[float]]:
    """(whether this machine has instructions for the precision; the cosines between the vectors of ``spec`` and those
    of its float32 form, 0 where only the latter has one)."""
    if not supported(spec.half):
        return False, []
    (half,), (full,) = (list(encoded(modality, one, [sample])) for one in (spec, spec.exact()))
    row = {content: number for number, content in enumerate(half.contents)}
    out = []
    for number, content in enumerate(full.contents):
        if content not in row:  # it overflowed, say
            out.append(0.0)
            continue
        a, b = half.vectors[row[content]].astype(np.float64), full.vectors[number].astype(np.float64)
        out.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
    return True, out
