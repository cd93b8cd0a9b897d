"""Where frozen models compute: threads that each work alone, half precision, and memory that is short for real."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionrec.encoders import forward
from fusionrec.encoders.forward import Forward, each, supported, threads
from tests.encoders import small


def test_the_results_stand_in_the_order_of_the_inputs():
    def late(n):
        time.sleep(0.02 if n % 3 == 0 else 0)  # later ones end before earlier ones
        return n * n

    assert each(late, range(11)) == [n * n for n in range(11)]
    assert each(late, iter([5, 2])) == [25, 4]
    assert each(late, []) == []


@pytest.mark.skipif(threads() < 2, reason="one processor: nothing runs beside anything else")
def test_two_run_at_once():
    meeting = threading.Barrier(2)
    assert sorted(each(lambda _: meeting.wait(timeout=20), "ab")) == [0, 1]  # alone, either would wait in vain


def test_no_more_run_at_once_than_there_are_processors():
    lock, now, most = threading.Lock(), [0], [0]

    def counted(_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1

    each(counted, range(5 * threads()))
    assert 1 <= most[0] <= threads()


def test_the_number_of_threads_is_what_the_machine_and_the_user_allow(monkeypatch):
    free = len(os.sched_getaffinity(0))
    for wanted, found in [("", free), ("1", 1), ("0", 1), (str(free + 5), free), ("4,2", free)]:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert threads() == found
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads() == free


def test_torch_and_blas_use_one_thread_inside_and_as_many_as_before_outside():
    from threadpoolctl import threadpool_info

    def blas():
        return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # whatever the machine has
        outside = blas()
        inside = each(lambda _: (torch.get_num_threads(), set(blas().values())), range(7))
        assert outside and inside == [(1, {1})] * 7
        assert torch.get_num_threads() == 3 and blas() == outside
    finally:
        torch.set_num_threads(before)


def test_the_first_exception_is_raised_and_what_has_not_begun_is_left_out():
    begun = []

    def one(n):
        begun.append(n)
        if n in (2, 5):
            raise KeyError(n)
        time.sleep(0.005)

    with pytest.raises(KeyError, match="2"):
        each(one, range(200))
    assert {0, 1, 2} <= set(begun) and len(begun) < 100
    assert each(str, [7]) == ["7"]  # the threads are there for the next call


def net(seed=3):
    """Convolution, norm and linear layers: (n, 2, 6, 6) -> (n, 5)."""
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(2, 7, 3), torch.nn.BatchNorm2d(7), torch.nn.GELU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.LayerNorm(112), torch.nn.Linear(112, 5)).eval()


def call(model, *inputs):
    return model(*inputs)


def alone(function):
    """What ``function`` gives on one thread."""
    return each(lambda _: function(), [0])[0]


def rows(n, seed=1):
    return torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels_last", [False, True])
def test_it_is_the_models_own_call(channels_last):
    model, x = net(), rows(4)
    with torch.no_grad():
        wanted = model(x).numpy()
    found = Forward(net(), call, channels_last=channels_last)(x)
    assert found.dtype == np.float32 and found.shape == (4, 5)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_several_inputs_keep_their_rows_together():
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([10, 20, 30])
    found = Forward(torch.nn.Identity(), lambda model, a, b: model(a).sum(1) * b)(x, y)
    assert found.tolist() == [10, 100, 270]  # (0+1) * 10, (2+3) * 20, (4+5) * 30


def test_many_threads_at_once_get_what_each_alone_gets():
    model = Forward(net(), call)
    batches = [rows(1 + n % 3, seed=n) for n in range(9)]
    wanted = [alone(lambda x=x: model(x)) for x in batches]
    for found, want in zip(each(model, batches), wanted, strict=True):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_rounded_once_give_the_bits_of_autocast(precision, dtype):
    model, x = net(), rows(4)

    def wanted():
        with torch.inference_mode(), torch.autocast("cpu", dtype):
            return model(x).float().numpy()

    half = Forward(net(), call, precision)
    np.testing.assert_array_equal(alone(lambda: half(x)), alone(wanted))
    np.testing.assert_array_equal(alone(lambda: half(x)), alone(wanted))  # and in every call
    with torch.no_grad():
        assert not np.array_equal(model(x).numpy(), alone(wanted))  # or nothing was shown


def test_a_transformer_whose_weights_are_rounded_gives_the_bits_of_autocast(tmp_path):
    import transformers

    folder = small.bert(tmp_path)
    tokens = torch.tensor([[1, 7, 30, 9, 2], [1, 50, 61, 2, 0], [1, 8, 8, 8, 2]])
    mask = (tokens != 0).long()

    def compute(model, tokens, mask):
        return model(input_ids=tokens, attention_mask=mask).last_hidden_state

    def wanted():
        model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return compute(model, tokens, mask).float().numpy()

    half = Forward(transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval(), compute, "bf16")
    np.testing.assert_array_equal(alone(lambda: half(tokens, mask)), alone(wanted))


def test_a_bug_of_a_model_is_not_taken_for_want_of_memory():
    model = Forward(torch.nn.Linear(3, 5), call)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.zeros(4, 2))
    assert model.halved == 0
    np.testing.assert_equal(model(torch.zeros(4, 3)).shape, (4, 5))  # its place is free again


@pytest.mark.parametrize(
    "error, short",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."), True),  # pinned memory
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (np._core._exceptions._ArrayMemoryError((5, 7), np.dtype("f4")), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x2 and 3x5)"), False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_that_say_that_memory_was_short(error, short):
    """By their words, where no test can bring them about here; the CPU's own comes up for real below."""
    tried = []

    def compute(model, x):
        tried.append(len(x))
        if len(tried) == 1:
            raise error
        return model(x)

    model = Forward(torch.nn.Identity(), compute)
    if not short:
        with pytest.raises(RuntimeError, match="CUDA error|shapes"):
            model(torch.zeros(5, 3))
    else:
        assert model(torch.arange(15.0).reshape(5, 3)).tolist() == [[3 * n, 3 * n + 1, 3 * n + 2] for n in range(5)]
        assert tried == [5, 3, 2] and model.halved == 1
        model(torch.zeros(5, 3))
        assert tried == [5, 3, 2, 3, 2] and model.halved == 2  # five are known to be too many: not tried, but counted


def run_short(name):
    """One arena: what glibc reserves for further ones would count as taken."""
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root)])
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "tests.encoders.narrow", name]
    out = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc/self/statm are Linux's")


@needs_limits
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_gives_the_same():
    """Room for two rows and a half. Five do not fit, nor do three: (2 + 1) + 2, two halvings. The second time both are
    known to be too large, and are halved untried. A row of four is too large alone; a small one fits after it."""
    out = run_short("rows")
    np.testing.assert_allclose(out["found"], [out["wanted"]] * 2, rtol=1e-6)
    assert (out["unlimited"], out["counts"]) == (0, [0, 2, 4])
    assert out["error"] == "a row of shape (4,) does not fit into the memory"
    np.testing.assert_allclose(out["small"], out["wanted"][3:4], rtol=1e-6)


@needs_limits
def test_the_content_that_is_too_large_is_absent_and_the_others_get_their_vectors():
    """First shard: four texts beside the one of nine letters take 4 x 9 units, two of them 2 x 9, it alone 9: three
    tries, and one more when the engine asks for each alone. Second: three of one letter are too many, two fit."""
    out = run_short("engine")
    assert out["reasons"] == [{"ninechars": ["out_of_memory", "a row of shape (9,) does not fit into the memory"]}, {}]
    assert sorted(out["found"]) == sorted(set(out["wanted"]) - {"ninechars"}) and len(out["found"]) == 7
    for text, vector in out["found"].items():
        np.testing.assert_allclose(vector, out["wanted"][text], rtol=1e-5)
    assert out["halved"] == [4, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU its own abilities count")
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel's list of instructions is Linux's")
def test_half_precision_is_supported_where_the_processor_has_instructions_for_it():
    flags = set(re.findall(r"\w+", next((x for x in open("/proc/cpuinfo") if x.startswith("flags")), "")))
    if not flags:
        pytest.skip("no flags in /proc/cpuinfo (not an x86 processor)")
    assert supported("fp32")
    assert supported("bf16") == bool({"avx512_bf16", "amx_tile"} & flags)
    assert supported("fp16") == ("amx_fp16" in flags)


def test_a_forked_child_gets_threads_of_its_own():
    """The parent's threads do not exist in it: it would wait for ever."""
    each(str, range(3))
    inherited = forward._pool
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = each(len, ["a", "bc", "def"])
            os.write(writer, f"{found} {forward._pool is inherited}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        import select

        ready, _, _ = select.select([answer], [], [], 30)
        if not ready:
            os.kill(child, 9)
        told = answer.read()
    os.waitpid(child, 0)
    assert told == "[1, 2, 3] False"
