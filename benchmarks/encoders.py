"""How fast the packaged encoders are, and the table of docs/encoders.md.

    taskset -c 0 python benchmarks/encoders.py     # some minutes; writes benchmarks/results/encoders.json and the table
    python benchmarks/encoders.py --table          # the table alone, after a kind was added

Items per second of processor time on one core, the median of five runs: other load on the machine disturbs that least.
What the encoders read: product texts of about twenty words, pictures of 640 x 427, sounds of 10 s, clips of 2 s.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.base import Attributes, EncoderSpec
from fusionrec.encoders.hub import Weights
from fusionrec.kinds import members

ROOT = Path(__file__).resolve().parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "encoders.json", ROOT / "docs" / "encoders.md"
BEGIN, END = "<!-- table: python benchmarks/encoders.py --table -->\n", "<!-- /table -->\n"
COMMAND = "taskset -c 0 python benchmarks/encoders.py"
RUNS = 5
SPECS: dict[str, type[EncoderSpec]] = {cls.model_fields["kind"].default: cls for cls in members(AnyEncoder)}
WIDTHS = {"vector": "as given", "attributes": "by the fields"}
"""What is said of the width where the input decides it."""
CHECKED = {
    "timm_image": "real: tf_efficientnet_lite0; random: ResNet-50, EfficientNet-B0, DINOv3, ConvNeXt; once by hand: "
    "VGG16, DINOv2, the towers of CLIP and SigLIP",
    "torchvision_video": "random: all three",
    "transformers_audio": "real: Whisper tiny.en; random: AST, CLAP, Wav2Vec2, HuBERT, WavLM",
    "transformers_image": "random: CLIP, SigLIP, ViT, DINOv2, Swin, ConvNeXt",
    "transformers_text": "real: MiniLM; random: BERT, RoBERTa, ModernBERT, T5, GPT-2, Llama, Qwen3, OPT",
    "transformers_video": "random: VideoMAE, TimeSformer",
}
"""With which weights the tests compare the vectors with the library's own: random ones show that the loading, the
input and the pooling are right, not that the vectors are of use."""


def needs_weights(kind: str) -> bool:
    """Whether its section names a model that somebody has to bring."""
    return any(field.annotation is Weights for field in SPECS[kind].model_fields.values())


def reads(kind: str) -> str:
    """What a kind reads; of ``tuned`` that depends on the encoder it tunes."""
    accepts = SPECS[kind].accepts
    return accepts if isinstance(accepts, str) else "as its `of`"


def source(kind: str) -> str:
    """Where the weights of a kind come from."""
    if SPECS[kind].learnt:
        return "[learnt here](models.md#learnt-here)"
    if needs_weights(kind):
        return "hub, folder or package"
    weights = getattr(importlib.import_module(SPECS[kind].__module__), "WEIGHTS", None)
    return f"package `{weights.requirement}`" if weights else "none of its own"


def inputs(accepts: str) -> list[Any]:
    """What an encoder is timed on."""
    from PIL import Image
    from sklearn.datasets import load_sample_image
    from text_encoder import catalogue

    rng = np.random.default_rng(0)
    if accepts == "text":
        english, chinese, _ = catalogue(rng, [0, 1, 2])
        return english[:64] + chinese[:64]
    if accepts == "image":
        photo = load_sample_image("china.jpg")
        return [Image.fromarray(np.roll(photo, 20 * n, axis=1)) for n in range(32)]
    if accepts == "audio":
        return [(0.2 * rng.standard_normal(160_000)).astype(np.float32) for _ in range(8)]
    if accepts == "video":
        return [_clip(n) for n in range(8)]
    if accepts == "attributes":
        names = [f"name {n}" for n in rng.zipf(1.5, 4096) % 1000]
        return [Attributes(((name,), (name, "new")), (float(x),)) for name, x in zip(names, rng.lognormal(3, 1, 4096))]
    return list(rng.normal(size=(4096, 64)).astype(np.float32))


def _clip(seed: int) -> Any:
    """Two seconds at 15 frames, a photo that drifts."""
    from sklearn.datasets import load_sample_image

    from fusionrec.media.video import Clip

    photo = load_sample_image("flower.jpg")[::2, ::2]
    frames = np.stack([photo[20:180, seed + 2 * k : seed + 2 * k + 213] for k in range(30)])
    spread, dense = (np.linspace(0, 29, n).astype(np.int16)[None] for n in (8, 16))
    return Clip(frames, np.arange(30) / 15, spread, dense, 2.0, 213, 160)


def measure(kind: str) -> dict[str, Any]:
    """Width and speed of a kind that needs no model to be named."""
    spec = SPECS[kind].model_validate({"kind": kind})
    encoder, batch = spec.build(), inputs(spec.accepts)
    rates = []
    for _ in range(RUNS + 1):
        start = time.process_time()
        rows = encoder.encode(batch)
        rates.append(len(batch) / (time.process_time() - start))
    found = statistics.median(rates[1:])  # the first run warms up
    own = spec.accepts not in WIDTHS
    return {"case": kind, "dim": rows.shape[1] if own else None, "ours": round(found, 1), "unit": "items/CPU-s"}


def table(rows: list[dict[str, Any]]) -> str:
    """One line a registered kind."""
    measured = {row["case"]: row for row in rows}
    lines = [
        "| kind | reads | vector | weights | compared with the library, weights | items a second of processor time |",
        "|---|---|---:|---|---|---:|",
    ]
    for kind in sorted(SPECS, key=lambda k: (reads(k), k)):
        row = measured.get(kind, {})
        width = row.get("dim") or ("its `dim`" if SPECS[kind].learnt else WIDTHS.get(reads(kind), "the model's"))
        checked = CHECKED.get(kind, "real" if source(kind).startswith("package") else "–")
        speed = f"{row['ours']:,.4g}" if row.get("ours") and reads(kind) != "vector" else "–"
        lines.append(f"| `{kind}` | {reads(kind)} | {width} | {source(kind)} | {checked} | {speed} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    told = f"\n*Speed: `{found['command']}`, commit {found['commit'][:9]}; default settings.*\n"
    PAGE.write_text(before + BEGIN + table(found["rows"]) + told + END + after, encoding="utf-8")


def main() -> None:
    if "--table" not in sys.argv[1:]:
        from workspace import about

        kinds = [kind for kind in sorted(SPECS) if not needs_weights(kind) and not SPECS[kind].learnt]
        rows = []
        for kind in kinds:
            rows.append(measure(kind))
            print(rows[-1])
        head = about()
        head["machine"]["cores used"] = len(os.sched_getaffinity(0))
        RESULT.write_text(json.dumps({**head, "command": COMMAND, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    write()


if __name__ == "__main__":
    main()
