"""Frozen encoders on GPUs: what they give is what a CPU gives, also where memory is short and on several devices.

``make gpu-check`` runs these where there is a GPU; without one they are skipped, and say so.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from PIL import Image

from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.forward import Forward, each, supported
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.transformers_text import TransformersText
from tests.encoders import small

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU (make gpu-check, where one is)"
)
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch finds fewer than two GPUs")

WORDS = "a red cup with handle made of clay by hand for tea and the garden in summer".split()
TEXTS = [" ".join(WORDS[(n + k) % len(WORDS)] for k in range(1 + 7 * n % 90)) for n in range(57)]


def pictures():
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (9, 7 + n, 3), dtype=np.uint8)).resize((240, 200)) for n in range(11)]


def random_text(folder):
    """Weights large enough that different texts get different vectors."""
    weights = {"path": str(small.bert(folder, initializer_range=0.4))}
    section = {"kind": "transformers_text", "weights": weights, "max_tokens": 64, "windows": 16}
    return TransformersText.model_validate(section)


SPECS = {
    "minilm": lambda folder: MiniLM(),
    "efficientnet_lite0": lambda folder: EfficientNetLite0(),
    "transformers_text": random_text,
}


def inputs(kind):
    return pictures() if kind == "efficientnet_lite0" else TEXTS


@pytest.fixture
def on_cpu(monkeypatch):
    """Build and encode as if there were no GPU: the same code on the processor."""

    def encode(spec, batch):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setattr(torch.cuda, "device_count", lambda: 0)
            encoder = spec.build()
            assert encoder.forward.kind == "cpu"
            return encoder.encode(batch)

    return encode


def cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@needs_gpu
@pytest.mark.parametrize("precision, least", [("fp32", 0.9999), ("bf16", 0.999), ("fp16", 0.999)])
@pytest.mark.parametrize("kind", sorted(SPECS))
def test_a_gpu_gives_what_a_cpu_gives(kind, precision, least, on_cpu, tmp_path):
    spec = SPECS[kind](tmp_path)
    wanted = on_cpu(spec, inputs(kind))
    encoder = spec.model_copy(update={"precision": precision}).build()
    assert encoder.forward.kind == "cuda"
    found = encoder.encode(inputs(kind))
    assert found.dtype == np.float32 and found.shape == wanted.shape and np.isfinite(found).all()
    assert cosines(found, wanted).min() > least
    between = np.stack([cosines(np.broadcast_to(row, wanted.shape), wanted) for row in found])
    assert (between.argmax(1) == np.arange(len(found))).all()  # each is nearest to its own
    assert encoder.halved == 0
    parameters = {p.device.type for p in encoder.forward._model.parameters()}
    assert parameters == {"cuda"}


@needs_gpu
def test_a_gpu_computes_fp16_and_the_same_batch_gives_the_same_bits():
    assert supported("fp32") and supported("fp16")
    encoder = MiniLM(precision="fp16").build()
    np.testing.assert_array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))


def greedy(model, x):
    """(n, 3) -> (n, 5), by way of n times 64 MB."""
    room = torch.empty(len(x), 16 << 20, device=x.device)
    room[:, :3] = x
    return model(room[:, :3])


def linear():
    torch.manual_seed(2)
    return torch.nn.Linear(3, 5)


@needs_gpu
def test_a_batch_that_does_not_fit_on_the_gpu_is_halved_and_gives_the_same():
    """Room for two rows and a half more than is taken: five do not fit, nor do three; the next call knows it."""
    x = torch.arange(15.0).reshape(5, 3)
    wanted = linear()(x).detach().numpy()
    model = Forward(linear(), greedy)
    for _ in range(2 * torch.cuda.device_count()):
        model(x[:1])  # the libraries' own buffers are made at a device's first call
    gc.collect()
    try:
        for device in range(torch.cuda.device_count()):
            torch.cuda.synchronize(device)
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(device).total_memory
            most = torch.cuda.memory_reserved(device) + 160 * 2**20
            torch.cuda.set_per_process_memory_fraction(most / total, device)
        for halved in (2, 4):
            np.testing.assert_allclose(model(x), wanted, rtol=1e-4, atol=1e-4)
            assert model.halved == halved
    finally:
        for device in range(torch.cuda.device_count()):
            torch.cuda.set_per_process_memory_fraction(1.0, device)


@needs_gpu
@needs_two
def test_two_gpus_are_both_used_and_give_what_one_gives(monkeypatch):
    seen = []

    def compute(model, x):
        seen.append(x.device.index)
        torch.cuda.synchronize(x.device)
        return model(x)

    batches = [torch.randn(1 + n % 4, 3, generator=torch.Generator().manual_seed(n)) for n in range(40)]
    found = each(Forward(linear(), compute), batches)
    assert set(seen) == set(range(torch.cuda.device_count())) and len(seen) == 40
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    seen.clear()
    alone = each(Forward(linear(), compute), batches)
    assert set(seen) == {0}
    for a, b in zip(found, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@needs_gpu
@needs_two
def test_two_gpus_give_the_vectors_of_one(monkeypatch):
    spread = MiniLM().build()
    wanted = spread.encode(TEXTS * 20)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    one = MiniLM().build()
    np.testing.assert_allclose(one.encode(TEXTS * 20), wanted, rtol=1e-3, atol=1e-4)
    assert one.forward._replicas().qsize() == 2 and spread.forward._replicas().qsize() >= 4
