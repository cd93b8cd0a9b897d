"""The shards one after the other, in this process, on all of the machine's processors or GPUs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

from fusionrec.embeddings.precision import compared
from fusionrec.embeddings.shards import EncodedShard, EngineSpec, Progress, Shard, encoded
from fusionrec.encoders.base import EncoderSpec
from fusionrec.modalities.base import Modality


class Local(EngineSpec):
    """No settings."""

    engine: Literal["local"] = "local"

    def encode(
        self, modality: Modality, spec: EncoderSpec, shards: Sequence[Shard], progress: Progress
    ) -> Generator[EncodedShard, None, None]:
        return encoded(modality, spec, shards, progress)

    def compare(self, modality: Modality, spec: EncoderSpec, sample: Shard) -> tuple[bool, list[float]]:
        return compared(modality, spec, sample)
