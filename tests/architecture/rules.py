"""The rules of the code base as functions on source text: each is itself tested on a snippet that breaks it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "fusionrec"

# Low to high; names on one line are one layer. A module may import its own layer and those before it.
LAYERS = [
    {"errors", "types", "paths", "kinds", "problems", "threads"},
    {"privacy"},
    {"media"},
    {"data"},
    {"encoders"},
    {"modalities"},  # above encoders: a modality's section of params.yaml names its encoder
    {"embeddings"},
    {"fusion"},
    {"evaluation"},
    {"ranking", "recommenders"},  # rankers learn in the recommenders' training loop; a Recommender holds a Ranker
    {"registry"},
    {"studies"},  # hyper-parameters and benchmarks: over models, below whoever runs them
    {"search"},
    {"serving"},
    {"monitoring"},
    {"demo"},
    {"config"},
    {"stages"},
    {"cli", "__main__", "flows"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
LIBRARY = {name for name in HEIGHT if HEIGHT[name] < HEIGHT["config"]}
# The one home of each platform (a prefix of the file's path below the repository).
HOMES = {
    "prefect": "flows/",
    "mlflow": "src/fusionrec/registry/",
    "great_expectations": "src/fusionrec/data/expectations.py",
    "evidently": ("src/fusionrec/monitoring/drift.py", "flows/hosted.py"),  # the second starts its server
    "ray": "src/fusionrec/embeddings/engines/ray",
    "bm25s": "src/fusionrec/search/",
    "faster_whisper": "src/fusionrec/search/",
    "fastapi": "src/fusionrec/serving/",
    "starlette": "src/fusionrec/serving/",
}
REGISTRIES = ["data/sources", "encoders", "fusion", "modalities", "ranking", "ranking/heads", "recommenders"]
DANGEROUS_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def files() -> list[Path]:
    """Every Python file of the product."""
    return sorted([*SRC.rglob("*.py"), *(ROOT / "flows").rglob("*.py")])


def registered(registry: str) -> set[str]:
    """The file names listed in a registry's __init__.py."""
    tree = ast.parse((SRC / registry / "__init__.py").read_text(encoding="utf-8"))
    return {
        c.value
        for node in ast.walk(tree)
        if isinstance(node, ast.List)
        for c in node.elts
        if isinstance(c, ast.Constant)
    }


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, function-level ones included; ``package`` resolves relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _place(where: str) -> tuple[str, str]:
    """(layer, package) of a path below the repository."""
    parts = Path(where).with_suffix("").parts
    if parts[0] == "flows":
        return "flows", ".".join(parts[:-1])
    return parts[2] if len(parts) > 2 else "", ".".join(parts[1:-1])


def layer_violations(source: str, where: str) -> list[str]:
    """Imports that point up, and platforms away from home."""
    layer, package = _place(where)
    out = []
    for line, name in imports(source, package):
        top, *rest = name.split(".")
        if top in HOMES and not where.startswith(HOMES[top]):
            out.append(f"{where}:{line}: imports {top}; only {HOMES[top]} may")
        target = rest[0] if top == "fusionrec" and rest else "flows" if top == "flows" else None
        if target is None or layer == "__init__" or target == "__version__":
            continue
        if target not in HEIGHT:
            out.append(f"{where}:{line}: {target} has no layer; add it to LAYERS in tests/architecture/rules.py")
        elif layer not in HEIGHT:
            out.append(f"{where}: {layer} has no layer; add it to LAYERS in tests/architecture/rules.py")
        elif HEIGHT[target] > HEIGHT[layer]:
            out.append(f"{where}:{line}: {layer} may not import {target}, which is a higher layer")
    return out


def sibling_violations(source: str, where: str, names: dict[str, set[str]]) -> list[str]:
    """A registered component that imports another one of its registry. Components meet in base.py and by injection;
    files that are not registered (training loops, weights) are shared ground."""
    out = []
    for registry, members in names.items():
        folder, stem = f"src/fusionrec/{registry}/", Path(where).stem
        if not where.startswith(folder) or stem not in members:
            continue
        prefix = "fusionrec." + registry.replace("/", ".") + "."
        for line, name in imports(source, prefix.rstrip(".")):
            sibling = name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else ""
            if sibling in members - {stem}:
                out.append(f"{where}:{line}: {stem} imports its sibling {sibling}; take it as a parameter")
    return out


def truth_violations(source: str, where: str) -> list[str]:
    """Who imports the demo's generator (it knows the true preferences): the command line alone may."""
    layer, package = _place(where)
    if layer in ("demo", "cli"):
        return []
    return [
        f"{where}:{line}: imports {name}; the truth of the demo is not for stages or the library"
        for line, name in imports(source, package)
        if name == "fusionrec.demo" or name.startswith("fusionrec.demo.")
    ]


def danger_violations(source: str, where: str) -> list[str]:
    """Ways to run code that came as data."""
    out = []
    for line, name in imports(source, _place(where)[1]):
        if name.split(".")[0] in DANGEROUS_MODULES:
            out.append(f"{where}:{line}: imports {name.split('.')[0]}")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
        if called == "torch.load" and keywords.get("weights_only") != "True":
            out.append(f"{where}:{node.lineno}: torch.load without weights_only=True")
        if called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            out.append(f"{where}:{node.lineno}: {called}; use yaml.safe_load")
        if called in ("eval", "exec", "os.system", "os.popen"):
            out.append(f"{where}:{node.lineno}: {called}")
        out += [
            f"{where}:{node.lineno}: {key}=True"
            for key in ("shell", "allow_pickle", "trust_remote_code")
            if keywords.get(key, "False") != "False"
        ]
    return out


def modality_violations(source: str, where: str, kinds: set[str]) -> list[str]:
    """A comparison of a modality with a name, outside the modality's own file."""
    if where in {f"src/fusionrec/modalities/{kind}.py" for kind in kinds} or where.startswith("src/fusionrec/demo/"):
        return []
    out = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            constants = {c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)}
            if constants & kinds and any(re.search(r"modalit", ast.unparse(side)) for side in sides):
                out.append(f"{where}:{node.lineno}: {ast.unparse(node)}; put this into the modality's file")
    return out
