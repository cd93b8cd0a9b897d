"""Prepares the repository's locks for the image, in the working directory; standard library only.

``runtime.lock`` and ``runtime-cpu.lock`` are requirements.lock and requirements-cpu.lock without the packages of the
``dev`` extra; ``build.lock`` is setuptools, which builds the project itself; ``torch.txt`` are the two pins whose CPU
builds replace those of the lock. Entries keep their hashes.
"""

import re
import tomllib
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9._-]+")


def canonical(requirement: str) -> str:
    """The name at the start of a requirement, as locks spell it."""
    found = NAME.match(requirement)
    if found is None:
        raise SystemExit(f"not a requirement: {requirement[:80]!r}")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def entries(lock: str) -> dict[str, str]:
    """name -> the entry (a pinned requirement and its indented hash lines), in the lock's order."""
    blocks = re.findall(r"^\S.*\n(?:[ \t]+.*\n)*", lock if lock.endswith("\n") else lock + "\n", re.M)
    return {canonical(block): block for block in blocks if not block.startswith("#")}


def prepare(folder: Path) -> dict[str, str]:
    """File name -> text. Ends with a message where the locks lack setuptools, torch or torchvision."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = {canonical(r) for r in project["optional-dependencies"]["dev"]}
    full = entries((folder / "requirements.lock").read_text(encoding="utf-8"))
    cpu = entries((folder / "requirements-cpu.lock").read_text(encoding="utf-8"))
    lacking = {"setuptools", "torch", "torchvision"} - set(full)
    if lacking:
        raise SystemExit(f"requirements.lock has no entry for {', '.join(sorted(lacking))}")
    return {
        "runtime.lock": "".join(text for name, text in full.items() if name not in tools),
        "runtime-cpu.lock": "".join(text for name, text in cpu.items() if name not in tools),
        "build.lock": full["setuptools"],
        "torch.txt": "".join(full[name].split()[0] + "\n" for name in ("torch", "torchvision")),
    }


if __name__ == "__main__":
    for name, text in prepare(Path()).items():
        Path(name).write_text(text, encoding="utf-8")
