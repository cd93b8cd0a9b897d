"""What graph recommenders do in torch: sparse products, layer means, and the losses they share.

A sparse matrix times a dense one is, row by row, a weighted sum of rows: an embedding bag. On a CPU that kernel is
several times as fast as torch.sparse in COO or CSR form and as SciPy (benchmarks/training.py measures it), and its
backward pass is the same product with the transposed matrix, which is stored where it differs. Sums run in a fixed
order, so results do not depend on the number of threads.

Imports torch: recommenders import this file inside functions.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn


class Product(nn.Module):
    """Multiplies (C, D) by the fixed sparse (R, C) ``matrix`` -> (R, D), float32, differentiable in the dense factor.

    The matrix moves with the module but is no part of its state: it can be made again. ``symmetric`` saves the copy
    for the backward pass.
    """

    def __init__(self, matrix: sparse.csr_matrix, *, symmetric: bool = False) -> None:
        super().__init__()
        _keep_freed_memory()
        self.symmetric = symmetric
        self._store("", matrix)
        if not symmetric:
            self._store("t_", matrix.T.tocsr())

    def _store(self, prefix: str, matrix: sparse.csr_matrix) -> None:
        wide = max(matrix.nnz, *matrix.shape) > np.iinfo(np.int32).max
        index = np.int64 if wide else np.int32  # half the bytes to read
        arrays = (matrix.indices.astype(index), matrix.indptr.astype(index), matrix.data.astype(np.float32))
        for name, array in zip(("column", "start", "weight"), arrays, strict=True):
            self.register_buffer(prefix + name, torch.from_numpy(array), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _Times.apply(x, self)

    def times(self, x: Tensor) -> Tensor:
        """The product itself, without a graph for gradients."""
        return _bag(x, self.column, self.start, self.weight)

    def transposed_times(self, g: Tensor) -> Tensor:
        if self.symmetric:
            return self.times(g)
        return _bag(g, self.t_column, self.t_start, self.t_weight)


def _bag(x: Tensor, column: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    x = x.detach().contiguous().float()
    if len(column) == 0:
        return x.new_zeros((len(start) - 1, x.shape[1]))
    return torch.embedding_bag(x, column, start, False, 0, False, weight, True)[0]


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product) -> Tensor:
        ctx.product = product
        return product.times(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.product.transposed_times(g), None


class _Layers(torch.autograd.Function):
    """mean_l A^l x for l = 0..L, by Horner's rule: y = x; L times y = x + A y. Nothing is kept for the backward pass,
    which is the same polynomial because A is symmetric."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product, layers: int) -> Tensor:
        ctx.product, ctx.layers = product, layers
        return _layer_mean(x.detach(), product, layers)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _layer_mean(g, ctx.product, ctx.layers), None, None


class _LayerRows(torch.autograd.Function):
    """The rows of the layer mean that a batch needs, and those of x: the same powers of A, sums of these rows only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product, layers: int, at: Tensor) -> tuple[Tensor, Tensor]:
        ctx.product, ctx.layers, ctx.n = product, layers, len(x)
        ctx.save_for_backward(at)
        y = x.detach()
        own = y.index_select(0, at)
        total = own.clone()
        for _ in range(layers):
            y = product.times(y)
            total += y.index_select(0, at)
        return total.div_(layers + 1), own

    @staticmethod
    def backward(ctx: Any, g: Tensor, own: Tensor) -> tuple[Tensor, None, None, None]:
        (at,) = ctx.saved_tensors
        g = g / (ctx.layers + 1)
        whole = y = g.new_zeros((ctx.n, g.shape[1])).index_add_(0, at, g)
        for _ in range(ctx.layers):
            y = ctx.product.times(y).add_(whole)  # cheaper than adding thousands of rows one by one
        return y.index_add_(0, at, own), None, None, None


def _layer_mean(x: Tensor, product: Product, layers: int) -> Tensor:
    y = x
    for _ in range(layers):
        y = product.times(y).add_(x)
    return y / (layers + 1) if layers == 0 else y.div_(layers + 1)


class Nodes(nn.Module):
    """Vectors of users and items in one (U + I, D) parameter, Xavier uniform for each kind, and their propagation."""

    def __init__(self, shape: tuple[int, int], dim: int) -> None:
        super().__init__()
        _keep_freed_memory()
        self.n_users, self.n_items = shape
        self.weight = nn.Parameter(torch.empty(sum(shape), dim))
        for part in self.split(self.weight.data):
            nn.init.xavier_uniform_(part)

    @property
    def item(self) -> Tensor:
        """(I, D), a view."""
        return self.weight[self.n_users :]

    def propagated(self, product: Product, layers: int) -> Tensor:
        """(U + I, D): the mean of layers 0..``layers`` of LightGCN (arXiv:2002.02126)."""
        return layer_mean(self.weight, product, layers)

    def propagated_rows(self, product: Product, layers: int, *at: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of :meth:`propagated` at each of the equally long node indices, and those of ``weight``.

        Both are (len(at), B, D). What a batch does not look at is neither added up nor kept.
        """
        return layer_rows(self.weight, product, layers, *at)

    def split(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """(U + I, D) -> users (U, D), items (I, D)."""
        return nodes[: self.n_users], nodes[self.n_users :]


def layer_mean(x: Tensor, product: Product, layers: int) -> Tensor:
    """mean_l A^l x over l = 0..``layers`` for the symmetric A of ``product``, differentiable in x (N, D)."""
    if not product.symmetric:
        raise AssertionError("the layer mean's backward pass takes the matrix for symmetric")
    return _Layers.apply(x, product, layers)


def layer_rows(x: Tensor, product: Product, layers: int, *at: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of :func:`layer_mean` and those of x at each of the equally long indices: both (len(at), B, D)."""
    if not product.symmetric:
        raise AssertionError("the layer mean's backward pass takes the matrix for symmetric")
    found, own = _LayerRows.apply(x, product, layers, torch.cat(at))
    shape = (len(at), -1, x.shape[1])
    return found.view(shape), own.view(shape)


def rows(x: Tensor, *index: Tensor) -> tuple[Tensor, ...]:
    """The rows of x (N, D) at each of the equally long indices; one gather, so one scatter in the backward pass."""
    found = x.index_select(0, torch.cat(index))
    return found.view(len(index), -1, x.shape[1]).unbind(0)


def bpr_loss(user: Tensor, positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of -log sigmoid(u.i - u.j) over the rows of (B, D) tensors (arXiv:1205.2618).

    ``weight`` (B,) of 0 and 1 leaves rows out; with none left the loss is 0.
    """
    difference = (user * (positive - negative)).sum(1)
    if weight is None:
        return -nn.functional.logsigmoid(difference).mean()
    return -(nn.functional.logsigmoid(difference) * weight).sum() / weight.sum().clamp(min=1)


def norms(*parts: Tensor) -> Tensor:
    """Sum of Frobenius norms by the number of rows of the last part: the benchmark's regulariser.

    MMRec (arXiv:2302.03497) adds norms, not their squares, so its grids of weights are meant for these.
    """
    return torch.stack([torch.linalg.vector_norm(p) for p in parts]).sum() / max(len(parts[-1]), 1)


def squares(*parts: Tensor) -> Tensor:
    """Half the sum of squares by the number of rows of the last part."""
    return torch.stack([p.square().sum() for p in parts]).sum() / (2 * max(len(parts[-1]), 1))


@cache
def _keep_freed_memory() -> None:
    """Ask the C library to keep large freed blocks for the next batch.

    glibc hands a block of some MB back to the kernel when it is freed, and the next one costs a page fault every
    4 KB: more than the product that fills it. Elsewhere than on glibc this does nothing.
    """
    mmap_threshold, trim_threshold = -3, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)


class Features(nn.Module):
    """Modality vectors and one linear map of each to ``dim``; a mask says which rows mean anything.

    ``tune``: the vectors are parameters that start at what was given, as in the benchmark's code; else constants.
    ``unused``: none at all, where the caller's loss has no use for them.
    """

    def __init__(self, given: dict[str, tuple[Any, Any]], dim: int, tune: bool, *, unused: bool = False) -> None:
        super().__init__()
        self.names = () if unused else tuple(given)
        self.maps = nn.ModuleDict({name: nn.Linear(given[name][0].shape[1], dim) for name in self.names})
        self.tuned = nn.ParameterDict()
        for name in self.names:
            x, present = (torch.from_numpy(np.asarray(part, np.float32)) for part in given[name])
            if tune:
                self.tuned[name] = nn.Parameter(x)
            else:
                self.register_buffer(f"x_{name}", x, persistent=False)
            self.register_buffer(f"here_{name}", present, persistent=False)

    def here(self, name: str) -> Tensor:
        """(I,) float 0 or 1: who has the modality."""
        return getattr(self, f"here_{name}")

    def raw(self, name: str) -> Tensor:
        """(I, D_m); rows of absent items mean nothing."""
        return self.tuned[name] if name in self.tuned else getattr(self, f"x_{name}")

    def mapped(self, name: str, at: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped vectors of the items ``at`` (B,) -> (B, dim), zero where absent, and (B,) float: who has one."""
        here = self.here(name).index_select(0, at)
        return self.maps[name](self.raw(name).index_select(0, at)) * here[:, None], here


def info_nce(a: Tensor, b: Tensor, count: Tensor, temperature: float) -> Tensor:
    """InfoNCE (arXiv:1807.03748) between the rows of a and b (N, D) as if row n stood there ``count[n]`` times.

    Mean over the B = sum(count) rows of -log(exp(s_nn) / sum_m count_m exp(s_nm)), s the cosines / temperature. A batch
    names most of its users and items several times: distinct rows with counts are the same loss with a half to a
    quarter of the work. 0 where nothing counts.
    """
    normalize = nn.functional.normalize
    with torch.autocast(a.device.type, enabled=False):  # exponentials of half-precision cosines are worth little
        return _InfoNCE.apply(normalize(a.float(), dim=1) / temperature, normalize(b.float(), dim=1), count.float())


class _InfoNCE(torch.autograd.Function):
    """Keeps exp(a b') (N, N) and nothing else of that size; the backward pass is two products with it."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, count: Tensor) -> Tensor:
        a, b = a.detach(), b.detach()
        share = count / count.sum().clamp(min=1)
        e = a @ b.T
        peak = e.amax(dim=1, keepdim=True) if len(b) else e.new_zeros(len(a), 1)
        e.sub_(peak).exp_()
        total = (e @ count).clamp_(min=torch.finfo(e.dtype).tiny)
        ctx.save_for_backward(a, b, count, share, e, total)
        return (share * (total.log() + peak[:, 0] - (a * b).sum(1))).sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b, count, share, e, total = ctx.saved_tensors
        count, share, weight = count[:, None], share[:, None], (share / total)[:, None]
        grad_a = weight * (e @ (count * b)) - share * b
        grad_b = count * (e.T @ (weight * a)) - share * a
        return grad_a.mul_(g), grad_b.mul_(g), None
