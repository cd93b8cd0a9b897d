"""The shards on Ray: two nodes on this machine, one that dies, a wrong token, and what is left afterwards."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from fusionrec.embeddings import shards
from fusionrec.embeddings.engine import HERE, embed
from fusionrec.embeddings.engines import ray as ray_engine
from fusionrec.embeddings.engines.ray import Ray
from fusionrec.embeddings.store import Store, verify
from fusionrec.encoders.base import Encoder
from fusionrec.encoders.minilm import MiniLM
from fusionrec.errors import Unavailable

from .conftest import Strings
from .test_shards import Together, TogetherEncoder

if not find_spec("ray"):  # it is not imported here: it reads its environment when it is
    pytest.skip("ray is not installed", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"text {n}{'!' * (n % 9 == 4)}{'?' * (n % 11 == 5)}" for n in range(120)]
SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}


class Slow(Together):
    """:class:`Together`, a tenth of a second a batch."""

    kind: Literal["slow"] = "slow"  # type: ignore[assignment]

    def build(self) -> Encoder:
        return SlowEncoder()


class SlowEncoder(TogetherEncoder):
    def encode(self, batch):
        time.sleep(0.1)
        return super().encode(batch)


class Broken(Strings):
    def load(self, index: int) -> str:
        return str(1 / (index - 3))


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """A token of this test's own, and where the nodes find its modules."""
    wanted = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield dict(os.environ)


@pytest.fixture(scope="module")
def cluster(environment) -> Iterator[Any]:
    """Two nodes with a processor each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    try:
        made.add_node(**SMALL)
        yield made
    finally:
        made.shutdown()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "MEAN_SHARD", 7)
    Together.left.clear()


def run(folder: Path, engine, spec=None, texts=TEXTS, **more):
    return embed(Strings(texts), Strings(texts).rows(), spec or Slow(), Store(folder), engine=engine, **more)


def same(found, wanted) -> bool:
    return (
        found.vectors.tobytes() == wanted.vectors.tobytes()
        and found.present.tolist() == wanted.present.tolist()
        and found.failed == wanted.failed
        and (found.encoded, found.note) == (wanted.encoded, wanted.note)
    )


def names(folder: Path) -> list[str]:
    """The files of a store; their names are digests of what is in them."""
    return sorted(f.name for f in folder.rglob("[!.]*.*"))


def test_two_nodes_give_the_bits_of_this_process(cluster, tmp_path):
    wanted, steps = run(tmp_path / "local", HERE, Together()), []
    engine = Ray(address=cluster.address, nodes=2)
    found = run(tmp_path / "ray", engine, Together(), progress=lambda done, total: steps.append((done, total)))
    assert same(found, wanted) and wanted.failed and names(tmp_path / "ray") == names(tmp_path / "local")
    assert steps[0] == (0, 120) and steps[-1] == (120, 120) and steps == sorted(steps) and len(steps) > 9
    rows = Strings(TEXTS).rows()
    with pytest.raises(ZeroDivisionError):  # an error on a node is the error that it is
        embed(Broken(TEXTS), rows, Together(), Store(tmp_path / "broken"), engine=Ray(address=cluster.address))


def test_a_shard_that_no_node_can_hold_is_told(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "JOIN_SECONDS", 1.0)
    with pytest.raises(Unavailable, match="embed.cpus is 64 and embed.gpus 0, the largest node has 1 processors"):
        run(tmp_path / "ray", Ray(address=cluster.address, cpus=64), Together())


REFUSED = """
import sys
from pathlib import Path
from fusionrec.embeddings.engines.ray import Ray
from fusionrec.errors import Unavailable
from tests.embeddings import test_ray
try:
    test_ray.run(Path(sys.argv[1]), Ray(address=sys.argv[2]), texts=["a", "b"])
except Unavailable as error:
    print("REFUSED", error)
"""


@pytest.mark.faults
def test_who_has_another_token_is_refused_and_told_what_to_set(cluster, environment, tmp_path):
    for token, ends in (("0" * 64, "REFUSED"), (environment["RAY_AUTH_TOKEN"], "")):
        done = subprocess.run(
            [sys.executable, "-c", REFUSED, str(tmp_path / "s"), cluster.address],
            env={**environment, "RAY_AUTH_TOKEN": token}, capture_output=True, text=True, timeout=150, check=True,
        )  # fmt: skip
        assert done.stdout.startswith(ends), done.stdout + done.stderr
        if ends:
            assert f"no Ray cluster at {cluster.address}" in done.stdout and "RAY_AUTH_TOKEN" in done.stdout
            assert not names(tmp_path / "s")
    assert names(tmp_path / "s")


@pytest.mark.faults
def test_a_node_that_is_killed_changes_nothing(cluster, tmp_path):
    wanted, killed = run(tmp_path / "local", HERE), []
    node = cluster.add_node(**SMALL)

    def kill(done: int, total: int) -> None:
        if done > total // 3 and not killed:
            killed.append(done)
            (raylet,) = node.all_processes["raylet"]
            os.kill(raylet.process.pid, signal.SIGKILL)

    found = run(tmp_path / "ray", Ray(address=cluster.address, nodes=3), progress=kill)
    assert killed and killed[0] < 80 and same(found, wanted) and verify(tmp_path / "ray") == []
    assert names(tmp_path / "ray") == names(tmp_path / "local")


@pytest.mark.faults
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_real_encoder_gives_the_same_bits_on_a_node(cluster, tmp_path, precision):
    spec, texts = MiniLM(precision=precision), [f"a {'very ' * (n % 5)}red bowl {n}" for n in range(60)]
    found = run(tmp_path / "ray", Ray(address=cluster.address), spec, texts)
    assert same(found, run(tmp_path / "local", HERE, spec, texts))


ALONE = """
import sys
from pathlib import Path
from fusionrec.embeddings import shards
from fusionrec.embeddings.engines.ray import Ray
from tests.embeddings import test_ray
shards.MEAN_SHARD = 7
test_ray.run(Path(sys.argv[1]), Ray(), progress=lambda done, total: print(done, flush=True))
"""


def left_of(session: set[int]) -> list[str]:
    """Ray's processes of this machine that were not there before."""
    return [" ".join(p.info["cmdline"] or ())[:90] for p in rays() if p.pid not in session]


def rays() -> list[psutil.Process]:
    return [
        p
        for p in psutil.process_iter(["cmdline", "status"])
        if p.info["status"] != psutil.STATUS_ZOMBIE
        and any(w in " ".join(p.info["cmdline"] or ()) for w in ("ray/core", "ray::", "ray/_private", "ray/dashboard"))
    ]


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", ["by itself", "SIGKILL"])
def test_a_cluster_that_a_run_started_ends_with_it(environment, tmp_path, end):
    before = {p.pid for p in rays()}
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(tmp_path / "s")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if int(line) > 30 and end == "SIGKILL":
            assert left_of(before), "this test sees Ray's processes"
            process.kill()
            break
    process.stdout.close()
    assert process.wait(60) == (0 if end == "by itself" else -signal.SIGKILL)
    # Whoever computes or holds data is gone at once. Of a driver that was killed, two of Ray's helpers (they serve
    # figures and environments) tell the dead head for a minute what happened, and end then.
    for seconds, helpers in ((10, ("ray::DashboardAgent", "ray::RuntimeEnvAgent")), (90, ())):
        limit = time.monotonic() + seconds
        while (left := [line for line in left_of(before) if not line.startswith(helpers)]) and time.monotonic() < limit:
            time.sleep(0.2)
        assert left == []
    assert verify(tmp_path / "s") == []
    if end == "SIGKILL":
        wanted, found = run(tmp_path / "local", HERE), run(tmp_path / "s", HERE)  # another engine goes on
        assert found.reused > 0 and found.vectors.tobytes() == wanted.vectors.tobytes()
        assert found.failed == wanted.failed and names(tmp_path / "s") == names(tmp_path / "local")
