"""A training epoch of a model of MMRec's own code, for benchmarks/training.py: prints the median seconds.

    python benchmarks/reference/mmrec_epoch.py CHECKOUT MODEL FOLDER THREADS

FOLDER/data.npz holds user, item and two feature matrices.

The code is copied into FOLDER and run from there as it is, with its own loader, negative sampling and optimiser. What
has left NumPy and SciPy since it was written is put back, and two packages that these models do not need are stubs.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
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
FIRST = {"n_layers": 2, "reg_weight": 1e-4, "dropout": 0.8, "cl_loss": 0.01, "n_ui_layers": 2}  # of each grid
EPOCHS = 3


def lay_out(checkout: Path, folder: Path) -> Path:
    source = folder / "src"
    shutil.copytree(checkout / "src", source)
    place = folder / "data" / "made"
    place.mkdir(parents=True)
    with np.load(folder / "data.npz") as data:
        pairs = np.stack([data["user"], data["item"], np.zeros(len(data["user"]), np.int64)], 1)
        features = [data[name] for name in data.files if name not in ("user", "item")]
    lines = ["userID\titemID\tx_label", *("\t".join(map(str, row)) for row in pairs.tolist())]
    place.joinpath("made.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, x in zip(("text", "image"), features, strict=True):
        np.save(place / f"{name}_feat.npy", x)
    (source / "configs" / "dataset" / "made.yaml").write_text(SETTINGS, encoding="utf-8")
    return source


def put_back() -> None:
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
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]


def main() -> None:
    checkout, model, folder, threads = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    source = lay_out(checkout, folder)
    os.chdir(source)
    sys.path.insert(0, str(source))
    put_back()
    from utils.configurator import Config
    from utils.dataloader import TrainDataLoader
    from utils.dataset import RecDataset
    from utils.utils import get_model, get_trainer, init_seed

    config = Config(model, "made", {"gpu_id": 0, "use_gpu": False, "seed": 0})
    for key, value in FIRST.items():
        if isinstance(config[key], list):
            config[key] = value if value in config[key] else config[key][0]
    init_seed(0)
    pairs = RecDataset(config).split()[0]
    repr(pairs)  # counts its rows
    loader = TrainDataLoader(config, pairs, batch_size=config["train_batch_size"], shuffle=True)
    loader.pretrain_setup()
    network = get_model(model)(config, loader)
    trainer = get_trainer()(config, network)
    clock = time.process_time if threads == 1 else time.perf_counter
    found = []
    for epoch in range(EPOCHS + 1):
        start = clock()
        network.pre_epoch_processing()
        trainer._train_epoch(loader, epoch)
        found.append(clock() - start)
    print(statistics.median(found[1:]))


if __name__ == "__main__":
    main()
