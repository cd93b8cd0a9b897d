"""Small models with random weights, written as their library writes them: what the encoders of hubs are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def timm_image(folder: Path, name: str = "test_vit.r160_in1k", **arguments: Any) -> dict[str, Any]:
    """A model of timm -> the section of params.yaml that names it."""
    import timm
    import torch

    torch.manual_seed(3)
    model = timm.create_model(name, **arguments)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return {"kind": "timm_image", "model": name, "weights": {"path": str(folder)}}


MAKERS = {"timm_image": timm_image}
"""kind -> what writes a small model of it into a folder and says its section."""
