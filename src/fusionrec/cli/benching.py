"""What `fusionrec bench` does: which models, where the units are kept, and the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fusionrec.cli.root import out_file
from fusionrec.errors import ConfigError, UsageError


def home() -> Path:
    """The private state: the project's, or ``.fusionrec`` in the working directory where there is no project."""
    from fusionrec.paths import Paths
    from fusionrec.stages.process import private_home

    try:
        place = Paths.find().home
    except UsageError:
        place = Path(os.environ.get("FUSIONREC_HOME") or ".fusionrec").resolve()
    private_home(place)
    return place


def run(
    folder: Path,
    models: str | None,
    spec: Path | None,
    out: Path | None,
    effort: dict[str, Any],
    rules: dict[str, Any],
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """The results, and the rows for people of each slice. Raises UsageError for numbers and names that make no sense,
    DataRejected for a broken folder."""
    from pydantic import ValidationError

    from fusionrec.data.files import write_json
    from fusionrec.data.sources.mmrec import log_file
    from fusionrec.studies import benchmark, contestants
    from fusionrec.studies.protocol import Rules

    out_file(out)
    if out is not None and folder.resolve() in out.resolve().parents:
        raise UsageError(f"--out: {out} lies in the folder that is read; name a file elsewhere")
    if not models and spec is None:
        raise UsageError("name the models to compare: --models ease,mgcn for kinds, --spec FILE for parameters")
    try:
        wanted = Rules(**rules)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{first['loc'][0]}: {first['msg']} (found {first['input']!r})") from None
    names = [name.strip() for name in (models or "").split(",") if name.strip()]
    compared = contestants.chosen(names, spec)
    log_file(folder)  # before a home is made for what cannot be read
    units = home() / "bench"
    found = benchmark.run(folder, compared, benchmark.Effort(**effort), units, wanted, say=say)
    if out is not None:
        write_json(out, found)
    parts = {part: benchmark.rows_for_people(found, part) for part in found["tests"]}
    return found, parts


def all_came_through(found: Mapping[str, Any]) -> None:
    """Raises ConfigError where a fit of a model that was asked for has failed: the table is of the others."""
    lost = [
        f"{entry['label']}: {len(entry['failed'])} of {len(entry['failed']) + entry['seeds']} fits failed, the first: "
        f"{entry['failed'][0]}"
        for entry in found["models"]
        if entry["failed"]
    ]
    if lost:
        raise ConfigError("\n".join(lost))
