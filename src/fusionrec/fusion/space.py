"""From raw encoder vectors to a space that models can learn in: standardise within groups, then whiten.

Chinese and English descriptions of one thing lie in different places of a multilingual encoder's space;
standardising each language by its own mean and deviation brings them together. Principal components with
whitening then give every direction the same weight, so that one loud factor (the outline of the object in a
picture) does not own the distances.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fusionrec.types import Bool, Float32, ItemSet

MIN_GROUP = 20  # a smaller group is standardised with the statistics of all rows
RIDGE = 0.005  # share of the largest variance added to each: the last components are mostly noise


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
        for name in items.modalities:
            use = items.present[name] & rows
            if use.sum() < 2:
                use = items.present[name]
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
            self._arrays[f"{name}/scale"] = np.maximum(np.stack(deviations), floor).astype(np.float32)
            z = self._standardise(name, items.features[name][use], group).astype(np.float64)
            centre = z.mean(0)
            _, singular, directions = np.linalg.svd(z - centre, full_matrices=False)
            keep = int(min(self.width, (singular > 1e-6 * max(singular[0], 1e-12)).sum() or 1))
            spread = singular[:keep] / np.sqrt(max(len(z) - 1, 1))
            spread = np.sqrt(spread**2 + RIDGE * spread[0] ** 2)
            # a fixed sign makes the basis a function of the data alone
            sign = np.sign(directions[:keep][np.arange(keep), np.abs(directions[:keep]).argmax(1)])
            self._arrays[f"{name}/centre"] = centre.astype(np.float32)
            self._arrays[f"{name}/basis"] = ((directions[:keep] * sign[:, None]).T / spread).astype(np.float32)
        return self

    def _standardise(self, name: str, x: Float32, group: np.ndarray) -> Float32:
        groups = self._arrays[f"{name}/groups"]
        at = np.zeros(len(x), np.int64)
        for position, g in enumerate(groups):
            at[group == g] = position
        return (x - self._arrays[f"{name}/mean"][at]) / self._arrays[f"{name}/scale"][at]

    def apply(self, items: ItemSet) -> tuple[dict[str, Float32], Bool]:
        """-> modality -> (I, d_m) float32 with zero rows where absent, and the (I, M) mask in sorted order."""
        out: dict[str, Float32] = {}
        mask = np.zeros((len(items), len(self.modalities)), bool)
        for column, name in enumerate(self.modalities):
            basis = self._arrays[f"{name}/basis"]
            vectors = np.zeros((len(items), basis.shape[1]), np.float32)
            if name in items.features:
                here = items.present[name]
                z = self._standardise(name, items.features[name][here], items.group[name][here])
                vectors[here] = (z - self._arrays[f"{name}/centre"]) @ basis
                mask[:, column] = here
            out[name] = vectors
        return out, mask

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"space/{k}": v for k, v in self._arrays.items()} | {"space.width": np.array([self.width], np.int64)}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> FeatureSpace:
        space = cls(int(arrays["space.width"][0]))
        space._arrays = {k.removeprefix("space/"): np.asarray(v) for k, v in arrays.items() if k.startswith("space/")}
        return space
