"""A training epoch of a model of MMRec's own code, for benchmarks/training.py: prints the median seconds.

    python benchmarks/reference/mmrec_epoch.py CHECKOUT MODEL FOLDER THREADS

FOLDER/data.npz holds user, item and two feature matrices.

The code is copied into FOLDER and run from there as it is, with its own loader, negative sampling and optimiser.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmrec import NAME, enter

FIRST = {"n_layers": 2, "reg_weight": 1e-4, "dropout": 0.8, "cl_loss": 0.01, "n_ui_layers": 2}  # of each grid
EPOCHS = 3


def main() -> None:
    checkout, model, folder, threads = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    with np.load(folder / "data.npz") as data:
        pairs = zip(data["user"].tolist(), data["item"].tolist(), strict=True)
        log = "".join(["userID\titemID\tx_label\n", *(f"{user}\t{item}\t0\n" for user, item in pairs)])
        text, image = (data[name] for name in data.files if name not in ("user", "item"))
    enter(checkout, folder, log, image, text)
    from utils.configurator import Config
    from utils.dataloader import TrainDataLoader
    from utils.dataset import RecDataset
    from utils.utils import get_model, get_trainer, init_seed

    config = Config(model, NAME, {"gpu_id": 0, "use_gpu": False, "seed": 0})
    for key, value in FIRST.items():
        if isinstance(config[key], list):
            config[key] = value if value in config[key] else config[key][0]
    init_seed(0)
    train = RecDataset(config).split()[0]
    repr(train)  # counts its rows
    loader = TrainDataLoader(config, train, batch_size=config["train_batch_size"], shuffle=True)
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
