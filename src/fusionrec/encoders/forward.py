"""Where a frozen model computes: on every GPU of this machine or on the processors, one batch a thread; in half
precision where that is asked for; and a batch that does not fit into memory is halved.

On a CPU each batch is computed by one thread and as many batches at once as there are processors: no thread waits for
another within an operation, and what a batch gives does not depend on how many processors there are.
"""

from __future__ import annotations

import copy
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fusionrec.types import Float32

if TYPE_CHECKING:
    from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]
"""What matrix products and convolutions compute in; everything else and the result stay float32."""
Given = TypeVar("Given")
Made = TypeVar("Made")

GPU_SHARE = 16  # a batch on a GPU holds as many times what one thread of a processor takes
_pool: tuple[int, ThreadPoolExecutor] | None = None
_making = threading.Lock()
_settings = threading.local()
_blas: tuple[int, Any] = 0, None  # who needs one thread now, and what undoes it


class OutOfMemory(MemoryError):
    """One row alone does not fit into memory."""


def threads() -> int:
    """Processors that this process may use, at most OMP_NUM_THREADS."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    free = len(os.sched_getaffinity(0))
    return max(1, min(free, int(wanted))) if wanted.isdigit() else free


def each(function: Callable[[Given], Made], inputs: Iterable[Given]) -> list[Made]:
    """``function`` of each input, in order, on as many threads as there are :func:`threads`; an operation of torch or
    of BLAS inside of it runs on that one thread. The first exception is raised, what has not begun is left out."""

    def one(value: Given) -> Made:
        _alone()
        return function(value)

    given = list(inputs)
    if not given:
        return []
    with _one_blas_thread():
        return list(_threads().map(one, given))


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """BLAS has one number of threads for the whole process: the first who comes sets it, the last who goes restores."""
    global _blas
    from threadpoolctl import threadpool_limits

    with _making:
        users, limits = _blas
        _blas = users + 1, limits or threadpool_limits(1, user_api="blas")
    try:
        yield
    finally:
        with _making:
            users, limits = _blas
            _blas = users - 1, limits if users > 1 else None
            if users == 1 and limits:
                limits.restore_original_limits()


def _threads() -> ThreadPoolExecutor:
    """The threads of this process (a forked child gets its own)."""
    global _pool
    with _making:
        if _pool is None or _pool[0] != os.getpid():
            _pool = os.getpid(), ThreadPoolExecutor(threads(), "encode")
        return _pool[1]


def _alone() -> None:
    """Let torch's operations in this thread use this thread alone. OpenMP's number of threads belongs to the thread
    that sets it, and torch sets it at a thread's first operation, so it is asked before."""
    if "torch" not in sys.modules or getattr(_settings, "alone", False):
        return
    import torch
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()
    threadpool_limits(1, user_api="openmp")
    _settings.alone = True


def supported(precision: Precision) -> bool:
    """Whether this machine computes it faster than float32: the GPU, or the processor's own instructions."""
    import torch

    if precision == "fp32":
        return True
    if torch.cuda.is_available():
        return precision == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    cpu: Any = torch.cpu
    if precision == "bf16":
        return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
    return bool(cpu._is_amx_fp16_supported())


def autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    """torch's own, or nothing for float32. ``device``: cpu or cuda."""
    import torch

    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16 if precision == "bf16" else torch.float16)


class Forward:
    """``compute(model, *inputs)`` -> one tensor with a row for each row of the inputs, on whichever device is free.

    ``halved`` counts the batches that did not fit into memory and were computed in halves, those included that were not
    tried because a smaller one had not fitted, and single rows that do not fit. Thread-safe.
    """

    def __init__(
        self,
        model: nn.Module,
        compute: Callable[..., Tensor],
        precision: Precision = "fp32",
        channels_last: bool = False,
    ) -> None:
        import torch

        self.compute, self.precision = compute, precision
        self.kind = "cuda" if torch.cuda.is_available() else "cpu"
        self.halved = 0
        self.most = float("inf")  # numbers in a batch that was too large
        self._model = model.to(memory_format=torch.channels_last) if channels_last else model
        self._free: SimpleQueue[tuple[Any, nn.Module]] | None = None
        self._lock = threading.Lock()

    def rows(self, on_cpu: int) -> int:
        """How much a batch holds (rows, or tokens) where one thread of a processor takes ``on_cpu``."""
        return on_cpu if self.kind == "cpu" else on_cpu * GPU_SHARE

    def __call__(self, *inputs: Tensor) -> Float32:
        """Tensors of n rows on the host -> (n, ...) float32. Raises OutOfMemory where not even one row fits."""
        count = len(inputs[0])
        if count < 2 or sum(x.numel() for x in inputs) < self.most:
            found = self._tried(inputs)
            if found is not None:
                return found
        with self._lock:
            self.halved += 1
        if count < 2:
            raise OutOfMemory(f"a row of shape {tuple(inputs[0].shape[1:])} does not fit into the memory")
        import numpy as np

        middle = (count + 1) // 2
        return np.concatenate([self(*(x[:middle] for x in inputs)), self(*(x[middle:] for x in inputs))])

    def _tried(self, inputs: tuple[Tensor, ...]) -> Float32 | None:
        """None where memory was short."""
        import torch

        try:
            return self._once(inputs)
        except (RuntimeError, MemoryError) as error:
            if not _short_of_memory(error):
                raise
        with self._lock:
            self.most = min(self.most, sum(x.numel() for x in inputs))
        if self.kind == "cuda":
            torch.cuda.empty_cache()
        return None

    def _once(self, inputs: tuple[Tensor, ...]) -> Float32:
        import torch

        free = self._replicas()
        device, model = replica = free.get()
        try:
            with torch.inference_mode(), autocast(self.kind, self.precision):
                if self.kind == "cuda":
                    inputs = tuple(x.pin_memory().to(device, non_blocking=True) for x in inputs)
                out: Float32 = self.compute(model, *inputs).float().cpu().numpy()
            return out
        finally:
            free.put(replica)

    def _replicas(self) -> SimpleQueue[tuple[Any, nn.Module]]:
        """One model a GPU, used by two threads in turn, so that one copies while the other computes; on a CPU all
        threads share one. In half precision the weights of products are rounded once, not for every batch."""
        import torch

        with self._lock:
            if self._free is None:
                if self.precision != "fp32":
                    _rounded(self._model, torch.bfloat16 if self.precision == "bf16" else torch.float16)
                self._free = SimpleQueue()
                places = [torch.device("cuda", n) for n in range(torch.cuda.device_count())] or [torch.device("cpu")]
                for number, place in enumerate(places):
                    model = (copy.deepcopy(self._model) if number else self._model).to(place)
                    for _ in range(2 if self.kind == "cuda" else threads() + 1):
                        self._free.put((place, model))
            return self._free


def _rounded(model: nn.Module, dtype: Any) -> None:
    """Weights of linear layers and convolutions in ``dtype``: to what autocast would round them in every call."""
    from torch import nn

    for layer in model.modules():
        if type(layer) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d):
            layer.to(dtype)


def _short_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The last two: pinned memory, and a library's own buffers on a GPU.
    said = "can't allocate memory", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"
    return any(words in str(error) for words in said)
