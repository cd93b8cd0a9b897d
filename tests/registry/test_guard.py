"""The alias ``champion`` on a real MLflow server, moved through its REST API as its pages do, and judged."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fusionrec import config
from fusionrec.errors import GateFailed, IntegrityError
from fusionrec.paths import Paths
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry import champions, guard, mlflow_store, tracking, verdict
from fusionrec.registry.champions import Champion, Ledger
from fusionrec.registry.mlflow_store import Registered
from fusionrec.stages import guard as stage

from .conftest import Server, bundled, made_old, register

NAMES = itertools.count(1)


# --- what is decided ---------------------------------------------------------------------------------------------


def version(number: int) -> Registered:
    return Registered("m", number, "run", False, "", {})


A, B, C = (Champion(n, letter * 64) for n, letter in ((1, "a"), (2, "b"), (3, "c")))


@pytest.mark.parametrize(
    "alias, ledger, found, action",
    [
        (None, Ledger(), None, "keep"),
        (None, Ledger(A, (A,)), None, "restore"),
        (None, Ledger(None, (A,)), None, "keep"),  # its version was deleted
        (1, Ledger(A, (A,)), {"challenger": A.bundle, "champion": None}, "keep"),
        (1, Ledger(A, (A,)), None, "repair"),
        (1, Ledger(), None, "refuse"),
        (1, Ledger(), {"challenger": A.bundle, "champion": None}, "accept"),
        (1, Ledger(), {"challenger": A.bundle, "champion": "z" * 64}, "accept"),  # nothing is known of another champion
        (2, Ledger(A, (A,)), None, "refuse"),
        (2, Ledger(A, (A,)), {"challenger": B.bundle, "champion": A.bundle}, "accept"),
        (2, Ledger(A, (A,)), {"challenger": B.bundle, "champion": None}, "refuse"),  # better than popularity only
        (3, Ledger(B, (A, B)), {"challenger": C.bundle, "champion": A.bundle}, "refuse"),  # better than an earlier one
        (1, Ledger(B, (A, B)), {"challenger": A.bundle, "champion": None}, "accept"),  # a roll-back
        (3, Ledger(A, (A, B, A)), {"challenger": C.bundle, "champion": A.bundle}, "accept"),  # after a roll-back
        (1, Ledger(B, (A, B)), {"challenger": C.bundle, "champion": None}, "refuse"),  # not the bundle that it was
        (1, Ledger(A, (A,)), {"challenger": C.bundle, "champion": A.bundle}, "accept"),
    ],
)
def test_decisions(alias, ledger, found, action):
    def check(_):
        if found is None:
            raise IntegrityError("no verdict")
        return found

    decided = guard.decide(None if alias is None else version(alias), ledger, check)
    assert decided.action == action
    assert bool(decided.reason) is (action in ("refuse", "restore", "repair"))
    assert decided.verdict == (found if action == "accept" else None)


def test_the_journal_survives_torn_lines(tmp_path):
    assert champions.read(tmp_path, "m") == Ledger()
    for champion in (A, B, A):
        champions.append(tmp_path, "m", {"event": "accepted", "version": champion.version, "bundle": champion.bundle})
    path = tmp_path / "champions/m.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"event": "acc')
    assert champions.read(tmp_path, "m") == Ledger(A, (A, B, A))
    champions.append(tmp_path, "m", {"event": "gone", "version": 1})
    champions.append(tmp_path, "m", {"event": "refused", "version": 7, "reason": "名字"})
    assert champions.read(tmp_path, "m") == Ledger(None, (A, B, A))
    assert [e["event"] for e in champions.events(tmp_path, "m")] == ["accepted"] * 3 + ["gone", "refused"]
    assert path.stat().st_mode & 0o077 == 0


# --- what is done ------------------------------------------------------------------------------------------------


@dataclass
class Shop:
    """Three versions of a model on the server: 1 (EASE), 2 (EASE of other settings), 3 (popularity); none judged."""

    home: Path
    name: str
    server: Server

    def version(self, number: int) -> Registered:
        found = mlflow_store.find(self.home, self.name, version=number)
        assert found is not None
        return found

    def source(self, number: int) -> str:
        with tracking.client(self.home) as (client, _):
            return str(client.get_model_version(self.name, str(number)).source)

    def add(self, source: str, like: Registered) -> int:
        """One more version, with the digests of ``like`` on the artifacts of ``source``."""
        digests = {key: value for key, value in like.tags.items() if key.endswith("_digest")}
        with tracking.client(self.home) as (client, _):
            made = client.create_model_version(
                self.name, source=source, run_id=like.run_id, tags=digests, model_id=source.removeprefix("models:/")
            )
        return int(made.version)

    def empty_model(self) -> str:
        with tracking.client(self.home) as (client, _):
            experiment = client.get_experiment_by_name("exp").experiment_id
            return f"models:/{client.create_logged_model(experiment).model_id}"

    def judge(self, number: int, against: int | None = None, says: str = "passed") -> None:
        """A verdict as the gate signs it."""
        one = self.version(number)
        verdict.record(self.home, one, {
            "name": self.name, "version": number, "challenger": one.tags["bundle_digest"], "verdict": says,
            "champion": None if against is None else self.version(against).tags["bundle_digest"],
            "opponent": "popularity" if against is None else f"champion (version {against})",
            "reasons": [] if says == "passed" else ["not better than popularity"], "metric": "ndcg@3", "p": 0.01,
            "difference": 0.125, "low": 0.0625, "high": 0.25, "users": 67, "challenger_mean": 0.5,
            "opponent_mean": 0.375,
        })  # fmt: skip

    def description(self, number: int) -> str:
        return mlflow_store.description(self.home, self.version(number))

    def describe(self, number: int, text: str) -> None:
        mlflow_store.describe(self.home, self.version(number), text)

    def settle(self) -> guard.Outcome | None:
        return guard.settle(self.home, self.name)

    def tags(self, number: int) -> dict[str, str]:
        return self.server.tags(self.name, number)

    @property
    def champion(self) -> int | None:
        return self.server.champion(self.name)

    def move(self, number: int) -> None:
        self.server.move(self.name, number)

    def events(self) -> list[str]:
        return [e["event"] for e in champions.events(self.home, self.name)]


@pytest.fixture(scope="module")
def base(world, shared_server, tmp_path_factory) -> Path:
    """The home of the three versions, registered once; each test gets a model of its own made of them."""
    home = tmp_path_factory.mktemp("guard-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", shared_server.uri)
        for number, spec in enumerate((EASE(), EASE(l2=(77.0,)), Popularity()), 1):
            folder = tmp_path_factory.mktemp("bundles") / "bundle"
            bundled(world, spec, folder)
            assert register(home, folder, "base").version == number
    return home


@pytest.fixture
def shop(base, server) -> Shop:
    name = f"shop{next(NAMES)}"
    with tracking.client(base) as (client, _):
        client.create_registered_model(name)
        for number in (1, 2, 3):
            old = client.get_model_version("base", str(number))
            client.create_model_version(
                name, source=old.source, run_id=old.run_id, tags=old.tags, model_id=old.source.removeprefix("models:/")
            )
    return Shop(base, name, server)


def test_a_passed_version_is_accepted(shop):
    assert shop.settle() is None and shop.champion is None
    shop.judge(1)
    shop.move(1)
    outcome = shop.settle()
    assert (outcome.event, outcome.version, outcome.put_back) == ("accepted", 1, False)
    assert "ndcg@3 0.5000 against 0.3750 of popularity: +0.1250 (95 % +0.0625 to +0.2500)" in outcome.text
    tags = shop.tags(1)
    assert tags["gate"] == "passed" and tags["champion_event"].startswith("accepted 20")
    assert "moved in MLflow" in tags["champion_event"]
    assert shop.settle() is None and shop.champion == 1 and shop.events() == ["accepted"]

    shop.judge(2, against=1)
    shop.move(2)
    assert shop.settle().text.startswith(f"version 2 of {shop.name} is champion after version 1")
    assert champions.read(shop.home, shop.name).current.version == 2


@pytest.mark.parametrize(
    "how, reason, first",
    [
        ("no verdict", "has no verdict", True),
        ("no verdict", "has no verdict", False),
        ("refused", "the gate refused version 3", False),
        ("altered", "altered or signed with another key", False),
        ("another version's", "speaks of another model", False),
        ("another bundle", "speaks of another model", True),
        ("no bundle", "has no bundle in its artifacts", False),
        ("swapped bundle", "holds another bundle", True),
    ],
)
def test_what_has_not_passed_is_put_back(shop, how, reason, first):
    if not first:
        shop.judge(1)
        shop.move(1)
        shop.settle()
    number = cheat(shop, how, None if first else 1)
    shop.describe(number, "Gate: passed: the alias champion may be moved here.\n\nthe numbers\n")
    shop.move(number)
    outcome = shop.settle()
    assert outcome.event == "refused" and outcome.put_back and reason in outcome.text
    assert shop.champion == (None if first else 1)
    tags = shop.tags(number)
    assert tags["gate"] == "refused" and reason in tags["gate_reason"]
    assert tags["champion_event"].startswith("refused 20")
    assert ("removed" if first else "put back on version 1") in tags["champion_event"]
    assert shop.description(number).startswith("Gate: refused: ") and "the numbers" in shop.description(number)
    assert shop.settle() is None


def cheat(shop: Shop, how: str, against: int | None) -> int:
    """A version that looks as if it had passed."""
    if how in ("no bundle", "swapped bundle"):  # the digest of version 3 on other artifacts
        source = shop.empty_model() if how == "no bundle" else shop.source(2)
        number = shop.add(source, shop.version(3))
        shop.judge(number, against)
        return number
    if how != "no verdict":
        shop.judge(3, against, says="refused" if how == "refused" else "passed")
    three = shop.version(3)
    if how == "altered":
        mlflow_store.set_tags(shop.home, three, {"verdict": three.tags["verdict"].replace("0.5", "0.6")})
    elif how == "another version's":
        shop.judge(2, against)
        two = shop.version(2)
        mlflow_store.set_tags(shop.home, three, {key: two.tags[key] for key in ("verdict", "signature")})
    elif how == "another bundle":
        mlflow_store.set_tags(shop.home, three, {"bundle_digest": shop.version(2).tags["bundle_digest"]})
    return 3


def test_going_back_is_allowed_and_a_stale_verdict_is_not(shop):
    shop.judge(1)
    shop.judge(3)  # better than popularity as well; never compared with version 1
    shop.move(1)
    shop.settle()
    shop.judge(2, against=1)
    shop.move(2)
    shop.settle()
    shop.move(3)
    assert "run `fusionrec promote --version 3`" in shop.settle().text and shop.champion == 2
    shop.move(1)
    outcome = shop.settle()
    assert outcome.event == "accepted" and "a roll-back" in outcome.text and shop.champion == 1
    shop.judge(3, against=1)
    assert shop.description(3).startswith("Gate: refused: version 3 was compared with popularity")
    shop.move(3)
    assert shop.settle().event == "accepted" and shop.tags(3)["gate"] == "passed"
    assert shop.description(3).startswith("Gate: passed: accepted as champion 20")
    # `promote` judges for minutes; a champion that changed meanwhile makes its verdict stale
    late = shop.add(shop.source(2), shop.version(2))
    shop.judge(late, against=1)
    with pytest.raises(GateFailed, match=r"compared with champion \(version 1\), and the champion is version 3"):
        guard.move(shop.home, shop.version(late), "fusionrec promote")
    assert shop.champion == 3


def test_an_alias_that_was_taken_away_comes_back(shop):
    shop.judge(1)
    shop.move(1)
    shop.settle()
    shop.server.drop(shop.name)
    outcome = shop.settle()
    assert (outcome.event, outcome.put_back, shop.champion) == ("restored", True, 1)
    assert "taken away" in shop.tags(1)["champion_event"]
    # who wants no champion deletes the version; then the next one starts afresh
    shop.server.call("model-versions/delete", "DELETE", name=shop.name, version="1")
    outcome = shop.settle()
    assert (outcome.event, outcome.put_back) == ("gone", False) and shop.settle() is None
    shop.judge(2)
    shop.move(2)
    assert shop.settle().event == "accepted"
    assert shop.events() == ["accepted", "restored", "gone", "accepted"]


def test_a_champion_whose_signed_tags_were_altered_gets_them_back(shop):
    shop.judge(1)
    shop.move(1)
    shop.settle()
    whole = shop.tags(1)
    for key in ("verdict", "signature", "bundle_digest"):
        mlflow_store.set_tags(shop.home, shop.version(1), {key: "x"})
        assert shop.settle().event == "repaired" and shop.champion == 1
        assert {k: shop.tags(1)[k] for k in ("verdict", "signature", "bundle_digest")} == {
            k: whole[k] for k in ("verdict", "signature", "bundle_digest")
        }
    # without the copy in the project there is nothing to give back: no champion is better than an unproven one
    (shop.home / f"verdicts/{shop.name}-1.json").unlink()
    mlflow_store.set_tags(shop.home, shop.version(1), {"verdict": "x"})
    assert shop.settle().event == "refused" and shop.champion is None and shop.settle() is None


def test_a_lost_journal_is_written_anew_from_signed_tags(shop):
    shop.judge(1)
    shop.move(1)
    shop.settle()
    shop.judge(2, against=1)
    shop.move(2)
    shop.settle()
    forged = dict(shop.version(2).tags)
    text = forged["acceptance"].replace('"version":2', '"version":3').replace('"generation":2', '"generation":9')
    mlflow_store.set_tags(shop.home, shop.version(3), {
        "acceptance": text, "acceptance_signature": forged["acceptance_signature"],
    })  # fmt: skip
    (shop.home / f"champions/{shop.name}.jsonl").unlink()
    shop.move(3)
    assert shop.settle().event == "refused" and shop.champion == 2
    assert [c.version for c in champions.read(shop.home, shop.name).accepted] == [1, 2]


def test_many_guards_at_once_do_it_once(shop):
    shop.judge(1)
    shop.move(1)
    shop.settle()
    shop.move(3)
    code = (
        "import sys; from pathlib import Path; from fusionrec.registry import guard; "
        "outcome = guard.settle(Path(sys.argv[1]), sys.argv[2]); print(outcome and outcome.event)"
    )
    run = lambda _: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code, str(shop.home), shop.name], capture_output=True, text=True, check=True
    ).stdout.strip()
    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(run, range(2)))
    assert said == ["None", "refused"] and shop.champion == 1 and shop.events() == ["accepted", "refused"]


def test_a_full_disk_is_no_reason_to_refuse(shop):
    """The guard of a process that may write no more than 99 bytes into a file; whoever it belongs to."""
    shop.judge(1)
    shop.move(1)
    code = (
        "import resource, sys; from pathlib import Path; from fusionrec.registry import guard, mlflow_store; "
        "mlflow_store.load(); resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))\n"
        "try: print(guard.settle(Path(sys.argv[1]), sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-B", "-c", code, str(shop.home), shop.name]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("Unavailable ") and "File too large" in said and "bytes free" in said
    assert shop.champion == 1 and shop.tags(1)["gate"] == "passed" and shop.events() == []
    assert shop.settle().event == "accepted"


def test_a_bundle_of_an_older_format_is_refused_with_what_to_do(home, ease_bundle):
    one = register(home, ease_bundle)
    verdict.record(home, one, {
        "name": one.name, "version": 1, "challenger": one.tags["bundle_digest"], "verdict": "passed",
        "champion": None, "opponent": "popularity", "reasons": [],
    })  # fmt: skip
    made_old(home / "mlflow/artifacts")
    mlflow_store.set_alias(home, one.name, "champion", 1)
    outcome = guard.settle(home, one.name)
    assert outcome.event == "refused" and "has format_version 1, this version reads 2" in outcome.text
    assert mlflow_store.find(home, one.name, alias="champion") is None


# --- as a process ------------------------------------------------------------------------------------------------


PARAMS = """
source: {kind: folder, root: x}
split: {kind: global_time, valid_from: 2, test_from: 3}
train: {retriever: {kind: ease}, fusion: {kind: concat}}
registry: {name: NAME}
"""


def start(shop: Shop, project: Path, *arguments: str) -> subprocess.Popen[str]:
    (project / "params.yaml").write_text(PARAMS.replace("NAME", shop.name))
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-m", "fusionrec", "guard", *arguments],
        cwd=project,
        env={**environment, "FUSIONREC_HOME": str(shop.home), "FUSIONREC_MLFLOW_URL": shop.server.uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def soon(condition, seconds=5.0) -> float:
    """Seconds until it holds; at most ``seconds``."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "not within the time allowed"
        time.sleep(0.05)
    return time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_guard_as_make_up_runs_it(shop, tmp_path):
    """Accepted and put back within 5 s; survives a server that hangs; what happens while it is down is judged later."""
    shop.judge(1)
    shop.move(1)
    process = start(shop, tmp_path, "--watch", "1")
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        soon(lambda: "champion_event" in shop.tags(1), 60)  # what was moved before the start
        shop.judge(2, against=1)
        shop.move(2)
        soon(lambda: shop.tags(2).get("champion_event", "").startswith("accepted"))
        shop.move(3)
        soon(lambda: shop.champion == 2 and shop.tags(3).get("gate") == "refused")
        shop.server.signal(signal.SIGSTOP)
        soon(lambda: any("did not answer" in line for line in lines), 60)
        time.sleep(3)
        shop.server.signal(signal.SIGCONT)
        soon(lambda: any("answers again" in line for line in lines), 30)
        assert sum("did not answer" in line for line in lines) == 1
        process.kill()
        process.wait()
        shop.move(3)
        assert shop.champion == 3
        again = start(shop, tmp_path)
        said, _ = again.communicate(timeout=60)
        assert again.returncode == 4 and shop.champion == 2, said
        assert said.splitlines()[-1].startswith("fusionrec: exit 4 (gate failed): the alias champion on version 3")
        assert "Traceback" not in said + "".join(lines)
    finally:
        process.kill()
        process.wait()


def test_watching_goes_on_when_the_registry_is_away(shop, monkeypatch):
    """The same loop in this process, on an address where nobody listens at first."""
    params = config.parse(yaml.safe_load(PARAMS.replace("NAME", shop.name)))
    shop.judge(1)
    shop.move(1)
    said: list[str] = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    def stop() -> bool:
        if len(said) == 2:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", shop.server.uri)
        return len(said) == 4

    stage.watch(params, Paths(shop.home, shop.home), 0.05, said.append, stop)
    assert [line.split()[0] for line in said] == ["watching", "MLflow", "MLflow", "version"]
    assert "did not answer" in said[1] and said[2] == "MLflow answers again" and shop.tags(1)["gate"] == "passed"
    assert json.loads(shop.tags(1)["acceptance"])["generation"] == 1
