"""Where training runs: one process on the best device there is, or the processes that torchrun started.

Every process draws the same batches, computes its share of each (:func:`share`) and averages the gradients with the
others. Where a loss is a mean over pairs (BPR, LATTICE) several processes take the steps that one would take; norms of
whole batches (LightGCN, VBPR, modality_graph) and losses that compare a batch's rows with each other (MGCN, two towers)
see one process's share at a time and differ a little more. Process 0 alone writes files and talks.
Nothing here is guessed from a cluster manager: alone, or started by torchrun.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionrec.errors import Unavailable

if TYPE_CHECKING:
    from torch import Tensor, device

PATIENCE = timedelta(hours=2)  # for a process that still lives: torchrun notices a dead one at once


def world() -> tuple[int, int]:
    """(number of this process, how many there are) as torchrun says; (0, 1) without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of one batch's rows (N, ...): every world-th one. Alone it is ``rows`` itself.

    Parts are equally long (rows from the beginning fill the last ones up), so that the mean over the processes is
    the mean over the batch, and nobody's part is empty.
    """
    rank, size = world()
    if size == 1 or len(rows) == 0:
        return rows
    return rows[np.arange(-(-len(rows) // size) * size) % len(rows)][rank::size]


def tensor(array: np.ndarray, device: device) -> Tensor:
    """``array`` on ``device``: the same memory on a CPU, through pinned memory and without waiting on a GPU."""
    import torch

    found = torch.from_numpy(array)
    if device.type == "cuda":
        return found.pin_memory().to(device, non_blocking=True)
    return found.to(device)


def fabric() -> Any:
    """A launched Fabric: the first GPU (bfloat16 where it has that) or the CPU; under torchrun one device a process."""
    import logging

    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every process
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    precision: Any = "bf16-mixed" if half else "32-true"
    _, size = world()
    if size == 1:
        return Fabric(devices=1, precision=precision, plugins=[LightningEnvironment()])
    _meet()
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    # A batch need not touch every parameter (a modality that none of its items has).
    strategy = DDPStrategy(find_unused_parameters=True)
    made = Fabric(strategy=strategy, devices=here, num_nodes=size // here, precision=precision)
    made.launch()
    return made


def _meet() -> None:
    """Join the process group under a name of this attempt's own: torchrun keeps one store over its restarts, and a
    restarted group that met under the old name would wait for processes that are dead."""
    import torch.distributed as dist

    if dist.is_initialized():
        return
    import torch

    rank, size = world()
    store, _, _ = next(iter(dist.rendezvous("env://", rank=rank, world_size=size)))
    cuda = torch.cuda.is_available()
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store),
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
        device_id=torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else None,
    )


@contextmanager
def together(held: AbstractContextManager[Any]) -> Iterator[None]:
    """Process 0 enters ``held`` and leaves it when all are done; the others wait until it has entered.

    Where process 0 cannot enter it fails, and torchrun ends the others. Raises Unavailable where one was lost.
    """
    rank, size = world()
    if size == 1:
        with held:
            yield
        return
    import torch

    try:
        made = fabric()
        with held if rank == 0 else nullcontext():
            made.barrier()
            yield
            made.barrier()
        torch.distributed.destroy_process_group()
    except RuntimeError as error:  # gloo's and NCCL's own errors, and dist.DistError
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        text = str(error).splitlines()[0]
        raise Unavailable(f"another process of this training ended: {text}; start again to go on from here") from None
