"""One whole training of a model of MMRec's own code, for benchmarks/parity.py: prints one line of JSON.

    python benchmarks/reference/mmrec_run.py CHECKOUT MODEL FOLDER JOB

FOLDER is empty; JOB is JSON: interactions, image, text (files), settings, seed. The code runs as it is, with its own
loader, sampling, optimiser, early stopping and evaluation; told are the test at the best epoch of validation and the
curve: mean loss and validation Recall@20 of each epoch.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmrec import NAME, enter


def main() -> None:
    checkout, model, folder, job = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    torch.set_num_threads(1)
    features = [np.load(job[name], allow_pickle=False) for name in ("image", "text")]
    enter(checkout, folder, Path(job["interactions"]).read_text(encoding="utf-8"), *features)
    from utils.configurator import Config
    from utils.dataloader import EvalDataLoader, TrainDataLoader
    from utils.dataset import RecDataset
    from utils.utils import get_model, get_trainer, init_seed

    logging.disable(logging.CRITICAL)
    config = Config(model, NAME, {"gpu_id": 0, "use_gpu": False, "seed": job["seed"]})
    for key, value in job["settings"].items():
        if config[key] is None:
            raise SystemExit(f"{model} knows no setting {key}")
        config[key] = value
    grids = [name for name in config["hyper_parameters"] if name != "seed" and isinstance(config[name], list)]
    if grids:
        raise SystemExit(f"{model} needs one value for each of {', '.join(grids)}")
    train, valid, test = RecDataset(config).split()
    for part in (train, valid, test):
        repr(part)  # counts its rows
    loader = TrainDataLoader(config, train, batch_size=config["train_batch_size"], shuffle=True)
    asked = [
        EvalDataLoader(config, part, additional_dataset=train, batch_size=config["eval_batch_size"])
        for part in (valid, test)
    ]
    init_seed(job["seed"])
    loader.pretrain_setup()
    trainer = get_trainer()(config, get_model(model)(config, loader))
    validations, ask = [], trainer._valid_epoch

    def kept(data: object) -> object:
        told = ask(data)
        validations.extend([float(told[0])] if data is asked[0] else [])
        return told

    trainer._valid_epoch = kept
    start = time.monotonic()
    value, _, found = trainer.fit(loader, valid_data=asked[0], test_data=asked[1], saved=False, verbose=False)
    losses = [float(total) / len(loader) for total in trainer.train_loss_dict.values()]
    out = {
        "valid": float(value),
        "recall@20": float(found["recall@20"]),
        "ndcg@20": float(found["ndcg@20"]),
        "epochs": len(losses),
        "curve": list(zip(losses, validations, strict=True)),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
