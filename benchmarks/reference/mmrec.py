"""What the scripts that run MMRec's own code share: a copy of it with a data set, and what newer libraries lack."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

SETTINGS = """USER_ID_FIELD: userID
ITEM_ID_FIELD: itemID
TIME_FIELD: timestamp
filter_out_cod_start_users: True
inter_file_name: 'made.inter'
vision_feature_file: 'image_feat.npy'
text_feature_file: 'text_feat.npy'
user_graph_dict_file: 'none.npy'
field_separator: "\\t"
"""
NAME = "made"


def enter(checkout: Path, folder: Path, interactions: str, image: np.ndarray, text: np.ndarray) -> None:
    """Copy the code into ``folder``, write the data set ``made`` beside it and go there; then it can be imported."""
    source, place = folder / "src", folder / "data" / NAME
    shutil.copytree(checkout / "src", source)
    place.mkdir(parents=True)
    place.joinpath(f"{NAME}.inter").write_text(interactions, encoding="utf-8")
    np.save(place / "image_feat.npy", image)
    np.save(place / "text_feat.npy", text)
    (source / "configs" / "dataset" / f"{NAME}.yaml").write_text(SETTINGS, encoding="utf-8")
    os.chdir(source)
    sys.path.insert(0, str(source))
    _put_back()


def _put_back() -> None:
    """What has left NumPy, SciPy and PyTorch since; two packages that these models do not need are stubs."""
    for name in ("lmdb", "torch_scatter"):
        sys.modules[name] = types.ModuleType(name)

    def scatter_add(src: torch.Tensor, index: torch.Tensor, dim: int = 0, dim_size: int = 0) -> torch.Tensor:
        return torch.zeros(dim_size).index_add(dim, index, src)

    def update(self: sparse.dok_matrix, values: dict) -> None:
        for (row, column), value in values.items():
            self._dict[int(row), int(column)] = np.float32(value)

    sys.modules["torch_scatter"].scatter_add = scatter_add  # type: ignore[attr-defined]
    sparse.dok_matrix._update = update
    np.float = float  # type: ignore[attr-defined]
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
