"""From raw encoder vectors to a space that models can learn in: standardise within groups, then whiten.

Chinese and English descriptions of one thing lie in different places of a multilingual encoder's space;
standardising each language by its own mean and deviation brings them together. Principal components with
whitening then give every direction the same weight, so that one loud factor (the outline of the object in a
picture) does not own the distances.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fusionrec.threads import threads_for
from fusionrec.types import Bool, Float32, Interactions, ItemSet

MIN_GROUP = 20  # a smaller group is standardised with the statistics of all rows
SHUFFLES = 60  # the null distribution of the leading eigenvalue
LEVEL = 0.05  # the chance that a modality without taste keeps a direction
TOO_FEW = 8  # components kept of each modality where the log is too short to tell any direction from chance
MAX_USERS = 50_000  # more users do not change the directions
MAX_ITEMS = 100_000  # more items do not change the components
RIDGE = 0.3  # share of the largest variance added to each, times components per row: few rows tell the last ones badly


class FeatureSpace:
    """Learnt on some rows of a catalogue, applied to any catalogue with the same modalities.

    ``width`` bounds the components kept of each modality; fewer are kept where the rows or the
    dimensions are fewer. Statistics come only from the rows given to :meth:`fit` (the items with
    training interactions), so nothing of later items enters.
    """

    def __init__(self, width: int = 96) -> None:
        self.width = width
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(sorted(name.removesuffix("/basis") for name in self._arrays if name.endswith("/basis")))

    @property
    def dims(self) -> dict[str, int]:
        """Modality -> number of components kept."""
        return {m: self._arrays[f"{m}/basis"].shape[1] for m in self.modalities}

    def fit(self, items: ItemSet, rows: Bool) -> FeatureSpace:
        """Learn from the items where ``rows`` (I,) is true and the modality is present, or from all present ones."""
        items.check_finite()
        for name in items.modalities:
            use = items.present[name] & rows
            if use.sum() < 2:
                use = items.present[name]
            if use.sum() > MAX_ITEMS:
                drawn = np.random.default_rng(0).choice(np.flatnonzero(use), MAX_ITEMS, replace=False)
                use = np.isin(np.arange(len(use)), drawn)
            if use.sum() < 2:
                continue  # nobody has this modality: nothing to learn, every row is masked anyway
            x, group = items.features[name][use].astype(np.float64), items.group[name][use]
            known = [g for g in np.unique(group) if (group == g).sum() >= MIN_GROUP]
            means, deviations = [x.mean(0)], [x.std(0)]
            for g in known:
                means.append(x[group == g].mean(0))
                deviations.append(x[group == g].std(0))
            floor = 1e-3 * max(float(np.median(deviations[0])), 1e-6)
            self._arrays[f"{name}/groups"] = np.array([-1, *known], np.int16)
            self._arrays[f"{name}/mean"] = np.stack(means).astype(np.float32)
            # What is the same throughout a group would be blown up for the group's next item.
            scale = [np.where(d < floor, deviations[0], d) for d in deviations]
            self._arrays[f"{name}/scale"] = np.maximum(np.stack(scale), floor).astype(np.float32)
            z = self._standardise(name, items.features[name][use], group).astype(np.float64)
            centre = z.mean(0)
            _, singular, directions = np.linalg.svd(z - centre, full_matrices=False)
            keep = int(min(self.width, (singular > 1e-6 * max(singular[0], 1e-12)).sum() or 1))
            spread = singular[:keep] / np.sqrt(max(len(z) - 1, 1))
            spread = np.sqrt(spread**2 + RIDGE * keep / len(z) * spread[0] ** 2)
            spread[spread == 0] = np.inf  # one vector for all: it tells nothing, and becomes 0
            # a fixed sign makes the basis a function of the data alone
            sign = np.sign(directions[:keep][np.arange(keep), np.abs(directions[:keep]).argmax(1)])
            self._arrays[f"{name}/centre"] = centre.astype(np.float32)
            self._arrays[f"{name}/basis"] = ((directions[:keep] * sign[:, None]).T / spread).astype(np.float32)
        return self

    def focus(self, items: ItemSet, train: Interactions, rank: int, seed: int = 0) -> FeatureSpace:
        """Keep, of each modality, the directions along which one user's items resemble each other more than by chance.

        With F the whitened vectors (I, d) and C the co-occurrence of different items in users' histories, freed of
        popularity, the directions are the leading eigenvectors of F'CF (no item is compared with itself, so nothing
        of a single item is memorised). Directions count only if their eigenvalue passes what the leading one reaches in
        95 of 100 cases when the vectors are dealt to the items at random (parallel analysis, Horn 1965,
        doi:10.1007/BF02289447, with the quantile of Glorfeld 1995, doi:10.1177/0013164495055003002); each is scaled
        by the fourth root of its eigenvalue. A modality that says nothing about what people touch together keeps no
        direction and leaves the space (unless that befalls all of them). At most ``rank`` directions each are kept.
        """
        rng = np.random.default_rng(seed)
        vectors, mask = self.apply(items)
        together = CoOccurrence(train)
        turns = {}
        for column, name in enumerate(self.modalities):
            rows = np.flatnonzero(mask[together.touched, column])
            f = vectors[name][together.touched].astype(np.float64)
            with threads_for(f.shape[0] * f.shape[1] ** 2):
                null = []
                for _ in range(SHUFFLES):
                    dealt = np.zeros_like(f)
                    dealt[rows] = f[rng.permutation(rows)]
                    null.append(float(np.linalg.eigvalsh(together.between(dealt))[-1]))
                value, direction = np.linalg.eigh(together.between(f))
            chance = max(float(np.quantile(null, 1 - LEVEL)), 0.0)  # below 0 users' items resemble each other less
            keep = np.flatnonzero(value > chance)[-rank:][::-1]
            turn = direction[:, keep]
            if len(keep):
                turn = turn * np.sign(
                    turn[np.abs(turn).argmax(0), np.arange(len(keep))]
                )  # a function of the data alone
            turns[name] = turn * value[keep] ** 0.25
        if not any(t.shape[1] for t in turns.values()):
            turns = {m: np.eye(d)[:, : min(TOO_FEW, rank)] for m, d in self.dims.items()}
        for name, turn in turns.items():
            if turn.shape[1] == 0:
                for part in ("groups", "mean", "scale", "centre", "basis"):
                    del self._arrays[f"{name}/{part}"]
            else:
                self._arrays[f"{name}/basis"] = (self._arrays[f"{name}/basis"] @ turn).astype(np.float32)
        self._level()
        return self

    def _level(self) -> None:
        """One factor for all modalities, so that the strongest direction has deviation near 1 (proportions stay)."""
        sizes = [float(np.linalg.norm(self._arrays[f"{m}/basis"], axis=0).max()) for m in self.modalities]
        if max(sizes, default=0.0) == 0:
            return  # nothing varies: all vectors are zero, and stay so
        for m in self.modalities:
            self._arrays[f"{m}/basis"] = (self._arrays[f"{m}/basis"] / max(sizes)).astype(np.float32)

    def _standardise(self, name: str, x: Float32, group: np.ndarray) -> Float32:
        groups = self._arrays[f"{name}/groups"]
        at = np.zeros(len(x), np.int64)
        for position, g in enumerate(groups):
            at[group == g] = position
        return (x - self._arrays[f"{name}/mean"][at]) / self._arrays[f"{name}/scale"][at]

    def apply(self, items: ItemSet) -> tuple[dict[str, Float32], Bool]:
        """-> modality -> (I, d_m) float32 with zero rows where absent, and the (I, M) mask in sorted order.

        Raises ValueError for vectors that are not finite, or of another width than those of the fit.
        """
        items.check_finite()
        out: dict[str, Float32] = {}
        mask = np.zeros((len(items), len(self.modalities)), bool)
        for column, name in enumerate(self.modalities):
            basis = self._arrays[f"{name}/basis"]
            vectors = np.zeros((len(items), basis.shape[1]), np.float32)
            if name in items.features:
                here, width = items.present[name], items.features[name].shape[1]
                fitted = self._arrays[f"{name}/mean"].shape[1]
                if width != fitted:
                    raise ValueError(
                        f"modality {name!r}: found vectors of {width} numbers, the model was fitted on {fitted}; embed "
                        "with the same encoder, or train again"
                    )
                z = self._standardise(name, items.features[name][here], items.group[name][here])
                vectors[here] = (z - self._arrays[f"{name}/centre"]) @ basis
                mask[:, column] = here
            out[name] = vectors
        return out, mask

    def unit(self, items: ItemSet) -> dict[str, Float32]:
        """Modality -> (I, d_m) float32 of :meth:`apply`, each item scaled so that all its modalities have length 1.

        The modalities keep the proportions that :meth:`focus` gave them; an absent one is a zero row.
        """
        vectors, _ = self.apply(items)
        length = np.sqrt(sum((v**2).sum(1, keepdims=True) for v in vectors.values()))
        return {m: v / np.maximum(length, np.float32(1e-9)) for m, v in vectors.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"space/{k}": v for k, v in self._arrays.items()} | {"space.width": np.array([self.width], np.int64)}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> FeatureSpace:
        space = cls(int(arrays["space.width"][0]))
        space._arrays = {k.removeprefix("space/"): np.asarray(v) for k, v in arrays.items() if k.startswith("space/")}
        return space


class CoOccurrence:
    """Which different items one user touches together, beyond what their popularity explains; never built as I x I.

    With X the (U, I) matrix, n its row sums and p the items' share of all interactions: rows (x - n p) / sqrt(n),
    columns divided by sqrt(item count), the diagonal removed. ``touched`` (I,): the items it speaks of, I_t of them.
    """

    def __init__(self, train: Interactions) -> None:
        x = train.matrix().astype(np.float64)
        x = x[np.flatnonzero(np.diff(x.indptr) > 0)[:MAX_USERS]]
        count = np.asarray(x.sum(0)).ravel()
        self.touched = count > 0
        x, count = x[:, np.flatnonzero(self.touched)], count[self.touched]
        self._n = np.asarray(x.sum(1)).ravel()
        self._p = count / max(count.sum(), 1)
        self._x = x
        self._weight = 1 / np.sqrt(np.maximum(count, 1))
        self._self = (
            np.asarray(x.T @ (1 / self._n)).ravel() - 2 * self._p * count + self._p**2 * self._n.sum()
        ) * self._weight**2

    def between(self, f: np.ndarray) -> np.ndarray:
        """F'CF for the touched items' F (I_t, d) -> (d, d), symmetric."""
        weighted = f * self._weight[:, None]
        y = (self._x @ weighted - np.outer(self._n, self._p @ weighted)) / np.sqrt(self._n)[:, None]
        return y.T @ y - f.T @ (f * self._self[:, None])
