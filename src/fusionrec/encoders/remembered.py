"""Weights that were learnt here, kept in .fusionrec/learnt under the key of what they were learnt from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fusionrec.data.files import fresh_folder

KEPT = 8  # folders: a setting that comes back, or an item that is new, learns nothing


def remember(encoders: Path, kept: Path) -> int:
    """Copy the learnt folders of ``encoders`` (data/encoders) to ``kept`` under the key of what they were learnt from;
    how many were copied. The oldest beyond :data:`KEPT` leave.

    DVC deletes a stage's outs before it runs, so this must happen before, e.g. after ``dvc pull``.
    """
    copied = 0
    for manifest in sorted(encoders.glob("*/manifest.json")):
        try:
            about = json.loads(manifest.read_text(encoding="utf-8"))
            key = str(about["key"]) if about["learnt"] else ""
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it will be learnt again
        target = kept / key
        if key.isalnum() and not target.exists():
            with fresh_folder(target) as folder:
                shutil.copytree(manifest.parent, folder, dirs_exist_ok=True)
            copied += 1
    by_age = sorted((f for f in kept.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime) if copied else []
    for old in by_age[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return copied
