"""Models of transformers from files that were hashed: what may be in their settings, and how they are loaded.

Two walls stand between a downloaded folder and this process. The library sees a folder of links to the files on our
list and nothing else (no Python file, no pickle, no adapter), and of config.json only what names no code: the type is
on the encoder's list of classes of the library itself, keys that fetch code or kernels are refused or left out
(CVE-2026-4372 was such a key), and ``trust_remote_code`` is never true.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrec.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from torch import nn

CONFIG = "config.json"
PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
)  # fmt: skip
REFUSED = {
    "auto_map": "names Python code of the folder",
    "custom_pipelines": "names Python code of the folder",
    "trust_remote_code": "asks to run code",
    "quantization_config": "loads another library; take weights that are not quantised",
    "base_model_name_or_path": "names another model",
}
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""What every ``from_pretrained`` is told."""


@contextmanager
def staged(files: Mapping[str, Path], types: Collection[str]) -> Iterator[tuple[Path, str]]:
    """(a folder that holds these files alone, their JSON cleaned; the model's type), gone afterwards.

    Raises ConfigError for a type that is not in ``types`` and for settings that name code.
    """
    if CONFIG not in files:
        raise ConfigError("weights: there is no config.json beside the tensors; it says what the model is")
    with tempfile.TemporaryDirectory(prefix="fusionrec-model-") as place:
        folder = Path(place)
        kind = ""
        for name, path in files.items():
            if name.endswith("config.json"):
                settings = _settings(path)
                (folder / name).write_text(json.dumps(settings), encoding="utf-8")
                kind = str(settings.get("model_type")) if name == CONFIG else kind
            else:
                (folder / name).symlink_to(path.resolve())
        if kind not in types:
            raise ConfigError(
                f"{files[CONFIG]}: found a model of type {kind}, expected one of {', '.join(sorted(types))}"
            )
        yield folder, kind


def network(folder: Path, name: str, optional: Collection[str] = ()) -> nn.Module:
    """The class ``name`` of transformers with the folder's tensors, float32, in evaluation mode.

    Raises IntegrityError where a tensor is missing or has another shape, but for those that have a word of ``optional``
    in their name: what computes something that the encoder does not use.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    try:
        with _quiet():
            model, found = getattr(transformers, name).from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **LOCAL
            )
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, ImportError) as error:
        raise ConfigError(f"transformers cannot load the model ({_line(error)})") from None
    except SafetensorError as error:
        raise IntegrityError(f"the weights are no safetensors file ({_line(error)}); they are not loaded") from None
    missing = sorted(k for k in found["missing_keys"] if not any(word in k for word in optional))
    other = sorted(str(k[0]) for k in found["mismatched_keys"])
    if missing or other:
        raise IntegrityError(
            f"the weights do not fill {type(model).__name__}: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3])}), {len(other)} have another shape ({', '.join(other[:3])})"
        )
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's bar and table of missing tensors would stand in the middle of the stage's own; we check them."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def processor(folder: Path, name: str) -> Any:
    """The class ``name`` of transformers that makes the model's input (a tokenizer, an image processor, ...)."""
    import transformers

    try:
        return getattr(transformers, name).from_pretrained(folder, **LOCAL)
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, ImportError) as error:
        raise ConfigError(
            f"transformers cannot load its {name} ({_line(error)}); the files beside the tensors say it"
        ) from None


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: found a {type(found).__name__}, expected an object")
    cleaned: dict[str, Any] = _cleaned(found, path)
    return cleaned


def _cleaned(value: Any, path: Path) -> Any:
    """Without keys that begin with "_" (the library's own, no settings; ``__type`` marks a token of a tokenizer)."""
    if isinstance(value, list):
        return [_cleaned(v, path) for v in value]
    if not isinstance(value, dict):
        return value
    for key, inner in value.items():
        why = REFUSED.get(key) if inner not in (None, False) else None
        if key.endswith("implementation") and inner not in (None, "eager", "sdpa"):
            why = "may name code of a hub"
        if why:
            raise ConfigError(f"{path}: {key!r} {why}; it is not loaded")
    return {key: _cleaned(v, path) for key, v in value.items() if not key.startswith("_") or key == "__type"}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
