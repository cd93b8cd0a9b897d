"""The loop behind :func:`fusionrec.recommenders.training.train`, on Lightning Fabric: device, precision, processes."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fusionrec.recommenders import devices
from fusionrec.recommenders.base import EnoughTime, Watch
from fusionrec.recommenders.checkpoints import Progress, next_checkpoints

if TYPE_CHECKING:
    from torch import Tensor

    from fusionrec.recommenders.training import Training

Batches = Callable[[int], Iterable[Callable[[], "Tensor"]]]


class _Step(nn.Module):
    """Computes a closure's loss as the forward pass of the trained module, where Fabric puts its autocast and DDP its
    hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        # Buffers are constants made by every process alike (graphs, often sparse, which cannot be broadcast).
        buffers = [f"module.{name}" for name, _ in module.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = buffers

    def forward(self, closure: Callable[[], Tensor]) -> Tensor:
        return closure()


def _alone(fabric: Any) -> Callable[[Callable[[], Tensor]], Tensor]:
    """A closure's loss in one process: under Fabric's autocast, without the wrappers that only DDP needs (they would
    cost 5 % of a small step)."""

    def step(closure: Callable[[], Tensor]) -> Tensor:
        with fabric.autocast():
            return closure()

    return step


class Loop:
    """One training: the module, its Adam, and how far it is."""

    def __init__(self, module: nn.Module, how: Training, seed: int) -> None:
        self.how, self.seed, self.module = how, seed, module
        self.fabric = devices.fabric()
        self.rank, self.size = devices.world()
        self.checkpoints = next_checkpoints(_start(module, how, seed), writes=self.rank == 0)
        parameters = list(module.parameters())
        # Adam in one pass over the memory; it knows real numbers only.
        fused = all(p.is_floating_point() for p in parameters)
        optimiser = torch.optim.Adam(parameters, lr=how.lr, weight_decay=how.weight_decay, fused=fused)
        self.step: Any
        self.optimiser, self.step, self.backward = optimiser, _alone(self.fabric), torch.Tensor.backward
        if self.size == 1:
            self.fabric.to_device(module)
        else:
            self.step, self.optimiser = self.fabric.setup(_Step(module), optimiser)
            self.backward = self.fabric.backward
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}

    def run(self, batches: Batches, validate: Callable[[], float], watch: Watch) -> float:
        """See :func:`fusionrec.recommenders.training.train`."""
        self._resume(watch)
        progress, how = self.progress, self.how
        while not progress.done:
            epoch = progress.epoch
            row = {"loss": self._epoch(batches, epoch)}
            if (epoch + 1) % how.valid_every == 0 or epoch + 1 == how.epochs:
                value = self._validate(validate)
                self._compare(value)
                row |= {} if math.isnan(value) else {f"valid_{how.metric}": value}
            progress.epoch += 1
            progress.curve.append(row)
            progress.done = progress.epoch >= how.epochs or bool(how.patience and progress.since >= how.patience)
            try:
                watch(epoch, row)
            except EnoughTime:
                progress.done = True
                if not self.best:  # cut short before the first validation
                    self._take()
            self._keep()
        self.module.load_state_dict(self.best, strict=False)
        self.module.cpu().eval()
        return progress.best

    def _epoch(self, batches: Batches, epoch: int) -> float:
        """One pass; returns the mean loss over batches and processes."""
        seed_epoch(self.seed, epoch, self.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = self.how.lr * self.how.decay**epoch
        self.module.train()
        losses = []
        for closure in batches(epoch):
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.step(closure)
            self.backward(loss)
            self.optimiser.step()
            losses.append(loss.detach())
        values = torch.stack(losses).double() if losses else torch.zeros(1, dtype=torch.float64)
        values = values.to(self.fabric.device)
        mean = float(self._mean(values.mean()))  # the same in every process, so all of them stop where one must
        if not np.isfinite(mean):
            bad = torch.nonzero(~torch.isfinite(values)).ravel().tolist()
            where = f"batch {bad[0]} of epoch {epoch}" if bad else f"epoch {epoch}, in another process"
            raise ValueError(f"the loss is {mean} in {where}: lower the learning rate (lr is {self.how.lr:g})")
        return mean

    def _mean(self, value: Tensor) -> Tensor:
        return self.fabric.all_reduce(value, reduce_op="mean") if self.size > 1 else value

    def _validate(self, validate: Callable[[], float]) -> float:
        """Process 0's value, in all of them: they must agree when to stop."""
        self.module.eval()
        value = 0.0
        if self.rank == 0:
            with torch.no_grad():
                value = float(validate())
        if self.size == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        return float(self.fabric.all_reduce(told, reduce_op="sum"))

    def _compare(self, value: float) -> None:
        if math.isnan(value):  # nothing to judge by: the last epoch stands
            self._take()
        elif value > self.progress.best or not self.best:
            self.progress.best, self.progress.since = max(self.progress.best, value), 0
            self._take()
        else:
            self.progress.since += 1

    def _take(self) -> None:
        self.best = {name: tensor.detach().clone() for name, tensor in _dense(self.module.state_dict()).items()}

    def _keep(self) -> None:
        """Write a checkpoint where one is due; the last one holds the best weights alone."""
        if self.checkpoints is None or not (self.progress.done or self.checkpoints.due()):
            return
        tensors = {f"best/{name}": value for name, value in self.best.items()}
        if not self.progress.done:
            tensors |= {f"module/{name}": value for name, value in _dense(self.module.state_dict()).items()}
            for row, state in self.optimiser.state_dict()["state"].items():
                tensors |= {f"adam/{row}/{name}": value for name, value in state.items()}
        self.checkpoints.write(self.progress, tensors)

    def _resume(self, watch: Watch) -> None:
        found = self.checkpoints.newest() if self.checkpoints is not None else None
        self._agree(found[0].epoch if found else 0)
        if found is None:
            return
        self.progress, tensors = found
        parts: dict[str, dict[str, Tensor]] = {"best": {}, "module": {}, "adam": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        self.best = {name: value.to(self.fabric.device) for name, value in parts["best"].items()}
        if not self.progress.done:
            self.module.load_state_dict(parts["module"], strict=False)
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in parts["adam"].items():
                row, _, key = name.partition("/")
                state.setdefault(int(row), {})[key] = value
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        for epoch, values in enumerate(self.progress.curve):
            try:
                watch(epoch, values)
            except EnoughTime:  # all of them are told, then it ends
                self.progress.done = True

    def _agree(self, epoch: int) -> None:
        """Every process must have found the same checkpoint."""
        if self.size == 1:
            return
        mine = torch.tensor(float(epoch), device=self.fabric.device)
        lowest = float(self.fabric.all_reduce(mine.clone(), reduce_op="min"))
        highest = float(self.fabric.all_reduce(mine.clone(), reduce_op="max"))
        if lowest != highest:
            raise ValueError(
                f"the processes found checkpoints of epoch {lowest:.0f} and of {highest:.0f}: the project must lie "
                "in a folder that all of them share"
            )


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed the global generators of python, numpy and torch for one epoch of one process."""
    first, second = (int(word) for word in np.random.SeedSequence([seed, epoch, rank]).generate_state(2))
    random.seed(first)
    np.random.seed(first)
    torch.manual_seed((first << 31) ^ second)


def _dense(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a module's state that training changes; sparse buffers are constants that the model makes."""
    return {name: value for name, value in state.items() if value.layout == torch.strided}


def _start(module: nn.Module, how: Training, seed: int) -> str:
    """sha256 of where a training starts: its settings and the initial weights."""
    digest = hashlib.sha256(f"{how.model_dump_json()} {seed}".encode())
    for name, value in sorted(_dense(module.state_dict()).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).data)
    return digest.hexdigest()
