"""Which models a benchmark compares: kinds with their defaults, a file of specs, or what an earlier benchmark chose.

# specs.yaml: label -> a retriever; or that, the fusion it trains through, and how many trials it gets of a search
ease: {kind: ease}
towers:
  retriever: {kind: two_tower, dim: 32}
  fusion: {kind: attention}
  trials: 4
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fusionrec.errors import ConfigError, UsageError
from fusionrec.fusion import AnyFusion
from fusionrec.fusion.base import FusionSpec
from fusionrec.kinds import members
from fusionrec.problems import explain, read_yaml
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.types import Spec


class _Model(Spec):
    """A model as it is written."""

    retriever: AnyRetriever
    fusion: AnyFusion | None = None


LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class Contestant:
    """A model under a name; ``fusion`` is injected into models that train through one (None: their default);
    ``trials``: its own number of trials where there is a search (None: everybody's)."""

    label: str
    spec: RetrieverSpec
    fusion: FusionSpec | None = None
    trials: int | None = None

    def sections(self) -> dict[str, Any]:
        """The whole model as JSON, every default included."""
        return {"retriever": dump(self.spec), "fusion": None if self.fusion is None else dump(self.fusion)}


def dump(spec: Spec) -> dict[str, Any]:
    return dict(spec.model_dump(mode="json", serialize_as_any=True))


def parse(label: str, section: Any) -> Contestant:
    """One entry of a file of specs. Raises ConfigError."""
    if not LABEL.fullmatch(label):
        raise ConfigError(f"{label!r} is no name for a model: letters, digits and . _ + -, at most 64")
    if not isinstance(section, Mapping):
        raise ConfigError(f"{label}: expected a section such as {{kind: ease}}, found {section!r}")
    whole = section if "retriever" in section else {"retriever": section}
    unknown = sorted(set(whole) - {"retriever", "fusion", "trials"})
    if unknown:
        raise ConfigError(f"{label}: unknown key {unknown[0]!r}; a model has retriever, fusion and trials")
    trials = whole.get("trials")
    if trials is not None and (not isinstance(trials, int) or isinstance(trials, bool) or trials < 0):
        raise ConfigError(f"{label}: trials must be a whole number from 0, found {trials!r}")
    try:
        model = _Model.model_validate({key: value for key, value in whole.items() if key != "trials"})
    except ValidationError as error:
        raise ConfigError(f"{label}: {'; '.join(explain(error, _Model))}") from None
    return Contestant(label, model.retriever, model.fusion, trials)


def read(path: Path) -> dict[str, Contestant]:
    """A YAML or JSON file: label -> section; a results file of a benchmark gives the models as it chose them."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if path.suffix.lower() == ".json" else read_yaml(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if isinstance(raw, Mapping) and isinstance(raw.get("models"), list):
        raw = {entry["label"]: entry["chosen"] for entry in raw["models"] if entry.get("chosen")}
    if not isinstance(raw, Mapping) or not raw:
        raise ConfigError(f"{path.name} must map names to models, such as  ease: {{kind: ease}}")
    return {str(label): parse(str(label), section) for label, section in raw.items()}


def chosen(names: Sequence[str], file: Path | None) -> list[Contestant]:
    """The models ``names``: entries of the file, or kinds with their defaults; without names all of the file.

    Raises UsageError for a name that is neither and for one that stands twice, ConfigError for the file."""
    known = read(file) if file else {}
    kinds = {cls.model_fields["kind"].default for cls in members(AnyRetriever)}
    out = []
    for name in names or known:
        if name not in known and name not in kinds:
            near = get_close_matches(name, [*known, *kinds], 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(f"no model {name!r}{hint}; known are {', '.join(sorted({*known, *kinds}))}")
        out.append(known.get(name) or parse(name, {"kind": name}))
    if len({c.label for c in out}) < len(out) or not out:
        raise UsageError(f"a benchmark needs models with different names, found {', '.join(names) or 'none'}")
    return out
