"""Encoders learn what is chosen together: the draws by hand, a planted problem, the same bits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import sparse

from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.hashed import Hashed
from fusionrec.encoders.learnt import Learning
from fusionrec.encoders.lstm_audio import LSTMAudio
from fusionrec.encoders.lstm_text import LSTMText
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.motion import Motion
from fusionrec.encoders.small_cnn import SmallCNN
from fusionrec.encoders.tuned import Tuned
from fusionrec.media.video import Clip
from fusionrec.recommenders.learning import drawn_items, halves, learn, vectors
from fusionrec.types import Interactions

ITEMS, USERS, KINDS = 160, 90, 4
KIND = np.arange(ITEMS) % KINDS
COLD = np.arange(ITEMS) >= 100  # chosen in validation alone
WORDS = ("oak", "glass", "steel", "wool")


def pairs(user: list[int], item: list[int]) -> Interactions:
    return Interactions(np.array(user, np.int32), np.array(item, np.int32), None, USERS, ITEMS)


@pytest.fixture(scope="module")
def choices() -> tuple[Interactions, Interactions]:
    """Each user likes one kind of item: five of it in train, two new ones of it in validation."""
    rng = np.random.default_rng(0)
    train, valid = [], []
    for user in range(USERS):
        mine = KIND == user % KINDS
        train += [(user, i) for i in rng.choice(np.flatnonzero(mine & ~COLD), 5, replace=False)]
        valid += [(user, i) for i in rng.choice(np.flatnonzero(mine & COLD), 2, replace=False)]
    return tuple(pairs(*map(list, zip(*part, strict=True))) for part in (train, valid))  # type: ignore[return-value]


def texts() -> list[str]:
    """The kind is one word among six that say nothing."""
    rng = np.random.default_rng(1)
    noise = [f"word{n}" for n in range(30)]
    return [" ".join(rng.permutation([WORDS[k], *rng.choice(noise, 6)])) for k in KIND]


def pictures() -> list[Image.Image]:
    """The kind is the direction of stripes, at any colour and brightness."""
    rng, (y, x) = np.random.default_rng(2), np.mgrid[:64, :64]
    waves = [np.sin(0.4 * (x * np.cos(a) + y * np.sin(a))) for a in np.pi / 4 * np.arange(KINDS)]
    tints = rng.uniform(0.3, 1, (ITEMS, 3))
    return [Image.fromarray((127 + 100 * waves[k][:, :, None] * t).astype(np.uint8)) for k, t in zip(KIND, tints)]


def sounds() -> list[np.ndarray]:
    """The kind is which of four soft tones is heard under two loud ones that say nothing."""
    rng, t = np.random.default_rng(3), np.arange(8000) / 16_000
    tone = {f: np.sin(2 * np.pi * f * t) for f in (200, 350, 500, 800, 1200, 1700, 2400, 3300, 4500, 6000)}
    soft, loud = list(tone)[1::2][:KINDS], list(tone)[::2]
    return [
        (0.02 * tone[soft[k]] + sum(0.4 * tone[f] for f in rng.choice(loud, 2, replace=False))).astype(np.float32)
        for k in KIND
    ]


QUICK = Learning(epochs=12, items=64, lr=1e-2, patience=0, metric="recall@20")
PLANTED = {
    "lstm_text": (LSTMText(dim=8, width=16, hidden=8, learning=QUICK), texts),
    "small_cnn": (SmallCNN(dim=8, side=32, width=8, learning=QUICK), pictures),
    "lstm_audio": (LSTMAudio(dim=8, mels=24, hidden=8, learning=QUICK), sounds),
}


def state(trainee) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainee.module.state_dict().items()}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_planted_is_learnt_and_found_in_items_never_trained_on(kind, choices):
    spec, inputs = PLANTED[kind]
    made = spec.start()
    done = learn(made, made.prepare(inputs()), *choices, spec.learning)
    losses = [row["loss"] for row in done.curve]
    assert np.mean(losses[-3:]) < losses[0] - 0.2
    assert done.best > done.before + 0.15
    assert done.best == max(row["valid_recall@20"] for row in done.curve) and len(done.curve) == 12


def test_the_same_seed_gives_the_same_bits_and_another_one_others(choices):
    def run(seed: int) -> dict[str, torch.Tensor]:
        spec = PLANTED["lstm_text"][0]
        spec = spec.model_copy(update={"learning": spec.learning.model_copy(update={"seed": seed, "epochs": 3})})
        torch.rand(seed + 5)  # whatever the generator did before
        made = spec.start()
        learn(made, made.prepare(texts()), *choices, spec.learning)
        return state(made)

    one, again, other = run(0), run(0), run(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["out.weight"], other["out.weight"])


def _clips() -> list[Clip]:
    rng = np.random.default_rng(4)
    table = np.zeros((1, 8), np.int16), np.zeros((1, 16), np.int16)
    frames = [rng.integers(0, 256, (1, 9, 16, 3), dtype=np.uint8) for _ in range(ITEMS)]
    for rows in table:
        rows[:, 1:] = -1
    return [Clip(f, np.zeros(1), *table, 0.1, 16, 9) for f in frames]


def test_a_head_leaves_the_encoder_alone_and_learns(choices):
    spec = Tuned(of=MiniLM(max_tokens=16), dim=8, learning=QUICK)
    made = spec.start()
    frozen = {name: value.clone() for name, value in made.inner.encoder.model.state_dict().items()}
    before = state(made)
    done = learn(made, made.prepare(texts()), *choices, spec.learning)
    now = made.inner.encoder.model.state_dict()
    assert all(torch.equal(frozen[name], now[name]) for name in frozen)
    assert not torch.equal(before["out.weight"], made.module.out.weight) and done.best > done.before
    assert {name.split(".")[0] for name in before} == {"mean", "spread", "out"}  # the backbone is not stored again


def test_what_never_moves_among_the_items_of_training_says_nothing_and_what_hardly_moves_does_not_shout():
    made = Tuned(of=Motion(), dim=3).start()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 90)).astype(np.float32)
    x[:, 0], x[:, 1] = 0.0, 1e-4 * x[:, 1]
    made.meet(list(x))
    new = np.zeros((3, 90), np.float32)
    new[1, 0], new[2, 1] = 1.0, 1.0
    with torch.no_grad():
        still, dead, quiet = made.module.eval()(torch.from_numpy(new))
    assert torch.equal(dead, still)
    assert 1 < (quiet - still).norm() / made.module.out.weight[:, 1].norm() < 20  # a tenth of the others' spread


def test_a_head_on_attributes_is_refused_in_words():
    with pytest.raises(ValueError, match="'hashed' has one column for each value; a recommender learns on them"):
        Tuned(of=Hashed())


def test_a_head_fits_any_encoder(choices):
    made = Tuned(of=Motion(), dim=3).start()
    done = learn(made, made.prepare(_clips()), *choices, Learning(epochs=1))
    assert made.module.out.weight.shape == (3, 90) and np.isfinite(done.best)


@pytest.mark.parametrize(
    ("of", "inputs", "still"),
    [
        (MiniLM(max_tokens=16), texts, lambda made: made.inner.encoder.model.encoder.layer[0]),
        (EfficientNetLite0(features="final"), pictures, lambda made: made.inner.front),
    ],
)
def test_full_tuning_changes_the_last_layers_and_nothing_before_them(of, inputs, still, choices):
    spec = Tuned(of=of, what="full", dim=8, learning=Learning(epochs=5, items=32, lr=1e-4, metric="recall@20"))
    made = spec.start()
    below = {name: value.clone() for name, value in still(made).state_dict().items()}
    before = state(made)
    learn(made, made.prepare(inputs()), *choices, spec.learning)
    now = still(made).state_dict()
    assert below and all(torch.equal(below[name], now[name]) for name in below)
    inner = [name for name, _ in made.module.inner.named_parameters()]
    changed = [n for n in inner if not torch.equal(before[f"inner.{n}"], made.module.state_dict()[f"inner.{n}"])]
    assert len(changed) > 0.8 * len(inner)


def test_an_item_without_the_modality_has_no_vector_and_hurts_nobody(choices):
    spec = PLANTED["lstm_text"][0]
    made = spec.start()
    prepared = [None if i % 7 == 0 else p for i, p in enumerate(made.prepare(texts()))]
    done = learn(made, prepared, *choices, spec.learning)
    z = vectors(made, prepared)
    assert not z[::7].any() and np.isfinite(z).all() and done.best > done.before
    np.testing.assert_allclose(np.linalg.norm(z[1:7], axis=1), 1, rtol=1e-5)


def test_the_catalogue_beyond_the_choices_is_not_looked_at(choices):
    """Statistics come from the items of train: an item that nobody chose there does not move them."""
    spec = Tuned(of=Motion(), dim=3, learning=Learning(epochs=1))
    means = []
    for scale in (1.0, 1000.0):
        made = spec.start()
        prepared = [p * (scale if c else 1) for p, c in zip(made.prepare(_clips()), COLD, strict=True)]
        learn(made, prepared, *choices, spec.learning)
        means.append(made.module.mean)
    assert torch.equal(*means)


def test_nothing_to_learn_from_is_refused_in_words(choices):
    spec = PLANTED["lstm_text"][0]
    made = spec.start()
    prepared, (train, valid) = made.prepare(texts()), choices
    one_each = pairs(list(range(USERS)), list(range(USERS)))
    for given, pair, message in (
        ([None] * ITEMS, choices, "no item of the training split has the modality"),
        (prepared, (one_each, valid), "no user with two of them"),
        (prepared, (train, train.select(np.zeros(len(train), bool))), "nothing says when to stop"),
    ):
        with pytest.raises(ValueError, match=message):
            learn(made, given, *pair, spec.learning)


def test_a_training_that_diverges_says_so(choices):
    made = PLANTED["lstm_text"][0].start()
    with pytest.raises(ValueError, match="the loss is nan in batch . of epoch .: lower the learning rate"):
        learn(made, made.prepare(texts()), *choices, Learning(epochs=2, lr=1e38))


def test_halves_have_a_target_and_a_history_in_every_row():
    indptr = np.array([0, 2, 5, 11])
    asked = np.stack([halves(indptr, np.random.default_rng(seed)) for seed in range(200)])
    for start, stop in zip(indptr, indptr[1:], strict=False):
        taken = asked[:, start:stop].sum(1)
        assert taken.min() >= 1 and taken.max() <= stop - start - 1
    assert 0.4 < asked.mean() < 0.6 and np.ptp(asked.mean(0)) < 0.2  # no place is favoured


def test_drawn_items_are_what_users_chose_until_it_is_enough():
    x = sparse.csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]], np.float32))
    for seed in range(20):
        two, all_ = (drawn_items(x, np.arange(2), most, np.random.default_rng(seed)).tolist() for most in (2, 9))
        assert len(two) == 2 and (set(two) <= {0, 1} or set(two) <= {2, 3, 4}) and all_ == [0, 1, 2, 3, 4]


def test_where_learning_does_harm_the_weights_it_began_with_stay(choices, monkeypatch):
    from fusionrec.recommenders import learning

    values = iter([0.5, 0.4, 0.3])  # untrained, after the first epoch, after the second one
    monkeypatch.setattr(learning, "validation_by_group", lambda *_: next(values))
    made = PLANTED["lstm_text"][0].start()
    before = state(made)
    done = learn(made, made.prepare(texts()), *choices, Learning(epochs=2))
    assert (done.before, done.best, len(done.curve)) == (0.5, 0.5, 2)
    assert all(torch.equal(before[name], value) for name, value in made.module.state_dict().items())
