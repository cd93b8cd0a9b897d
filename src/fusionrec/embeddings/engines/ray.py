"""The same shards on a Ray cluster: the one at ``address``, or one that is started here and ends with the run.

Each shard is a task that any node may do and another does again where a node is lost; the vectors come back to this
process, which alone writes the store. Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI
2018. Token authentication is always on: without it whoever reaches the cluster runs code on it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from fusionrec.embeddings.precision import compared
from fusionrec.embeddings.shards import EncodedShard, EngineSpec, Progress, Shard, encoded
from fusionrec.encoders.base import EncoderSpec
from fusionrec.errors import Unavailable
from fusionrec.modalities.base import Modality

JOIN_SECONDS = 120.0
"""How long a cluster may take until enough nodes, and large enough ones, have joined."""


class Ray(EngineSpec):
    """Every node needs this package, the weights and the catalogue's files at the same paths (a shared file system),
    and the cluster's token (``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``)."""

    engine: Literal["ray"] = "ray"
    address: str | None = Field(None, description="host:port of the cluster's head; null: a cluster is started here")
    nodes: PositiveInt | None = Field(None, description="wait until so many nodes have joined; null: do not wait")
    cpus: PositiveInt = Field(1, description="processors that a shard takes")
    gpus: NonNegativeFloat = Field(0.0, description="GPUs that a shard takes; .25: four shards share one")
    ahead: PositiveInt = Field(2, description="shards that wait for each one that is being encoded")
    retries: NonNegativeInt = Field(3, description="how often a shard is done again because a node was lost")

    def encode(
        self, modality: Modality, spec: EncoderSpec, shards: Sequence[Shard], progress: Progress
    ) -> Generator[EncodedShard, None, None]:
        total, done = sum(map(len, shards)), 0
        progress(0, total)
        with _cluster(self) as ray:
            given = ray.put((modality, spec))
            task = self._task(ray, _shard)
            waiting = list(reversed(shards))
            running: dict[Any, Shard] = {}
            while waiting or running:
                while waiting and len(running) < self._room(ray):
                    shard = waiting.pop()
                    running[task.remote(given, shard)] = shard
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                shard = running.pop(ready)
                found: EncodedShard = _got(ray, ready)
                done += len(shard)
                progress(done, total)
                yield found

    def compare(self, modality: Modality, spec: EncoderSpec, sample: Shard) -> tuple[bool, list[float]]:
        with _cluster(self) as ray:
            found: tuple[bool, list[float]] = _got(ray, self._task(ray, _compared).remote((modality, spec), sample))
            return found

    def _task(self, ray: Any, function: Any) -> Any:
        # Ray sets OMP_NUM_THREADS to num_cpus, which is what the encoders go by.
        return ray.remote(function).options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)

    def _room(self, ray: Any) -> int:
        """How many shards are handed out at once: what the nodes that live now can do, and some that wait."""
        there = ray.cluster_resources()
        at_once = there.get("CPU", 1) // self.cpus
        if self.gpus:
            at_once = min(at_once, there.get("GPU", 0) // self.gpus)
        return int(max(at_once, 1)) * (1 + self.ahead)


def _shard(given: tuple[Modality, EncoderSpec], shard: Shard) -> EncodedShard:
    """On a node: one shard, by the same code as everywhere."""
    (found,) = encoded(*given, [shard])
    return found


def _compared(given: tuple[Modality, EncoderSpec], sample: Shard) -> tuple[bool, list[float]]:
    return compared(*given, sample)


def _got(ray: Any, answer: Any) -> Any:
    """A task's answer. An error of ours comes back as itself; a cluster that lost too much is Unavailable."""
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise Unavailable(
            f"the Ray cluster lost a shard ({type(error).__name__}: {line[:200]}); run again, what is done is kept"
        ) from None


@contextmanager
def _cluster(spec: Ray) -> Iterator[Any]:
    """Ray, connected as the spec says. Raises Unavailable where the cluster cannot be reached or no node is large
    enough."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AUTH_MODE"] = "token"
    import ray

    where: dict[str, Any] = {"address": spec.address} if spec.address else {"include_dashboard": False}
    try:
        ray.init(**where, log_to_driver=False, logging_level="error", configure_logging=False)
    except Exception as error:  # of several kinds, by what is wrong
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise Unavailable(
            f"no Ray cluster at {spec.address or 'this machine'} ({type(error).__name__}: {line[:200]}); expected one "
            "that was started with RAY_AUTH_MODE=token and whose token is in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from None
    try:
        _joined(ray, spec)
        yield ray
    finally:
        ray.shutdown()


def _joined(ray: Any, spec: Ray) -> None:
    import time

    end = time.monotonic() + JOIN_SECONDS
    while spec.nodes and sum(node["Alive"] for node in ray.nodes()) < spec.nodes:
        if time.monotonic() > end:
            alive = sum(node["Alive"] for node in ray.nodes())
            raise Unavailable(
                f"found {alive} Ray nodes after {JOIN_SECONDS:.0f} s, expected {spec.nodes} (embed.nodes)"
            )
        time.sleep(0.5)
    while not any(_can_take(node, spec) for node in ray.nodes()):
        if spec.address is None or time.monotonic() > end:  # a cluster of others may grow
            largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
            gpus = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
            raise Unavailable(
                f"no Ray node can take a shard: embed.cpus is {spec.cpus} and embed.gpus {spec.gpus:g}, the largest "
                f"node has {largest:g} processors, the most GPUs of a node are {gpus:g}; ask for less"
            )
        time.sleep(0.5)


def _can_take(node: dict[str, Any], spec: Ray) -> bool:
    there = node["Resources"]
    return bool(node["Alive"] and there.get("CPU", 0) >= spec.cpus and there.get("GPU", 0) >= spec.gpus)
