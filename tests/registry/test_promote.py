"""From a registered version to a champion, on a real sqlite MLflow; and every way to cheat."""

from __future__ import annotations

import json
import stat

import polars as pl
import pytest

from fusionrec import config
from fusionrec.data.split import Splits, write
from fusionrec.errors import ConfigError, GateFailed, IntegrityError, UsageError
from fusionrec.paths import Paths
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry import mlflow_store, signing, verdict
from fusionrec.stages import promote

from .conftest import bundled, made_old
from .conftest import register as register_bundle


@pytest.fixture
def paths(home, tmp_path, world) -> Paths:
    paths = Paths(tmp_path / "project", home)
    empty = world.trained.clear()
    parts = {"train": world.trained, "valid": empty, "test": world.later}
    write(paths, Splits(list(world.items.ids), parts, {}, pl.DataFrame(), pl.Series()))
    return paths


@pytest.fixture
def params():
    return config.parse(
        {
            "source": {"kind": "folder", "root": "x"},
            "modalities": {},
            "split": {"kind": "random_per_user"},
            "train": {"retriever": {"kind": "ease"}, "fusion": {"kind": "concat"}},
            "evaluate": {"k": [3, 5], "main_k": 3, "bootstrap": 500},
            "registry": {"promotion": {"min_pairs": 50}},
        }
    )


def register(world, paths, spec, folder, **kwargs) -> mlflow_store.Registered:
    bundled(world, spec, folder, **kwargs)
    return register_bundle(paths.home, folder)


def alias(paths, name="champion"):
    found = mlflow_store.find(paths.home, "fusionrec", alias=name)
    return found and found.version


def test_the_life_of_a_champion(world, paths, params, tmp_path):
    with pytest.raises(UsageError, match="fusionrec register"):
        promote.run(params, paths)

    # popularity itself does not beat popularity, so there is still no champion
    register(world, paths, Popularity(), tmp_path / "b1")
    with pytest.raises(GateFailed, match="not better than popularity") as refused:
        promote.run(params, paths)
    assert refused.value.exit_code == 4 and alias(paths) is None
    first = mlflow_store.find(paths.home, "fusionrec", version=1)
    assert first.tags["gate"] == "refused"
    with pytest.raises(IntegrityError, match="refused"):
        verdict.verify_verdict(paths.home, first)

    # a better one passes, and is champion from then on
    register(world, paths, EASE(), tmp_path / "b2")
    report = promote.run(params, paths)
    assert alias(paths) == 2 and "is champion" in report.notes[0]
    champion = mlflow_store.find(paths.home, "fusionrec", alias="champion")
    genuine = verdict.verify_verdict(paths.home, champion)
    assert genuine["challenger"] == champion.tags["bundle_digest"] and genuine["champion"] is None
    kept = json.loads((paths.home / "verdicts/fusionrec-2.json").read_text("utf-8"))
    assert kept == {"verdict": genuine, "signature": champion.tags["signature"]}
    assert "already" in promote.run(params, paths).notes[0]

    # an equally good one is refused, and the champion stays
    register(world, paths, EASE(), tmp_path / "b3", label="the same again")
    with pytest.raises(GateFailed, match=r"not better than champion \(version 2\)"):
        promote.run(params, paths)
    assert alias(paths) == 2 and alias(paths, "challenger") == 3

    # the verdict names what it compared
    third = json.loads(mlflow_store.find(paths.home, "fusionrec", version=3).tags["verdict"])
    assert third["champion"] == champion.tags["bundle_digest"] and third["window"]["pairs"] == world.later.height

    # nor does a verdict help anyone but its own version
    _forgeries(paths, champion)


def _forgeries(paths, champion):
    text, signature = champion.tags["verdict"], champion.tags["signature"]
    other = mlflow_store.find(paths.home, "fusionrec", version=3)
    cheats = {
        "altered": (champion, {"verdict": text.replace('"passed"', '"passed" '), "signature": signature}),
        "speaks of another": (other, {"verdict": text, "signature": signature}),
        "altered or signed": (
            other,
            {
                "verdict": other.tags["verdict"].replace("refused", "passed"),
                "signature": other.tags["signature"],
            },
        ),
        "another key": (champion, {"verdict": text, "signature": signing.sign(text, b"k" * 32)}),
        "no verdict": (champion, {"verdict": "", "signature": ""}),
        "signed with another": (champion, {"verdict": text, "signature": "é" + signature}),
    }
    for message, (version, tags) in cheats.items():
        mlflow_store.set_tags(paths.home, version, tags)
        found = mlflow_store.find(paths.home, "fusionrec", version=version.version)
        with pytest.raises(IntegrityError, match=message):
            verdict.verify_verdict(paths.home, found)
    mlflow_store.set_tags(paths.home, champion, {"verdict": text, "signature": signature})
    found = mlflow_store.find(paths.home, "fusionrec", version=champion.version)
    assert verdict.verify_verdict(paths.home, found)["verdict"] == "passed"


def test_an_altered_artifact_is_not_promoted(world, paths, params, tmp_path):
    register(world, paths, EASE(), tmp_path / "b1")
    for path in (paths.home / "mlflow/artifacts").rglob("model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        promote.run(params, paths)
    assert alias(paths) is None


def test_a_champion_of_an_older_format_is_told_with_what_to_do(world, paths, params, tmp_path):
    register(world, paths, EASE(), tmp_path / "b1")
    promote.run(params, paths)
    made_old(paths.home / "mlflow/artifacts")
    register(world, paths, EASE(l2=(77.0,)), tmp_path / "b2")
    with pytest.raises(ConfigError, match=r"(?s)version 1, the champion.*format_version 1.*delete version 1 in MLflow"):
        promote.run(params, paths)
    assert alias(paths) == 1


def test_another_models_data_is_not_comparable_without_a_champion(world, paths, params, tmp_path):
    register(world, paths, EASE(), tmp_path / "b1", trained=world.trained.head(100))
    with pytest.raises(GateFailed, match="not comparable"):
        promote.run(params, paths)


def test_too_few_pairs_end_with_not_comparable(world, paths, params, tmp_path):
    register(world, paths, EASE(), tmp_path / "b1", temporal=False)
    strict = params.model_copy(update={"registry": config.Registry()})
    with pytest.raises(GateFailed, match=r"^not comparable: \d+ test pairs .* expected at least 500"):
        promote.run(strict, paths)


def test_the_key_is_private_and_stays(tmp_path):
    keys = tmp_path / "keys"
    key = signing.verdict_key(keys)
    assert len(key) == 32 and signing.verdict_key(keys) == key != signing.verdict_key(tmp_path / "other")
    assert stat.S_IMODE((keys / "verdict.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert [p.name for p in keys.iterdir()] == ["verdict.key"]
    (keys / "verdict.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        signing.verdict_key(keys)


def test_splits_of_the_toy_world(world):
    """The tests above mean something only if train and test are apart."""
    assert world.trained.join(world.later, on=["user_id", "item_id"], how="inner").height == 0
    assert world.later.filter(pl.col("timestamp") <= world.trained["timestamp"].max()).height == 0
