"""A planted folder in the MMRec format: users like one group of items, which a vector shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

N_USERS, N_ITEMS, GROUPS, WIDTH = 47, 36, 3, 5


def write(root: Path, labels: bool = True, seed: int = 0, per_user: int = 11) -> Path:
    """Of a user's pairs nine in ten lie in the user's group; where ``labels``, two are valid and two test."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    group = np.arange(N_ITEMS) % GROUPS
    lines = ["userID\titemID" + ("\tx_label" if labels else "")]
    for user in range(N_USERS):
        weight = np.where(group == user % GROUPS, 0.9 * GROUPS, 0.1)
        items = rng.choice(N_ITEMS, per_user, replace=False, p=weight / weight.sum())
        label = [0] * (per_user - 4) + [1, 1, 2, 2]
        for item, part in zip(items, label, strict=True):
            lines.append(f"{user}\t{item}" + (f"\t{part}" if labels else ""))
    (root / f"{root.name}.inter").write_text("\n".join(lines) + "\n")
    shown = np.eye(GROUPS, WIDTH)[group] + 0.1 * rng.standard_normal((N_ITEMS, WIDTH))
    np.save(root / "text_feat.npy", shown.astype(np.float32))
    np.save(root / "image_feat.npy", rng.standard_normal((N_ITEMS, WIDTH + 1)).astype(np.float32))
    return root


def shuffle_test(root: Path, seed: int = 5) -> None:
    """Deal the test items to other users; train and validation stay."""
    path = next(root.glob("*.inter"))
    head, *lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.endswith("\t2")]
    test = [line.split("\t") for line in lines if line.endswith("\t2")]
    known = {tuple(line.split("\t")[:2]) for line in kept}
    items = np.random.default_rng(seed).permutation([item for _, item, _ in test])
    dealt = [f"{user}\t{item}\t2" for (user, _, _), item in zip(test, items, strict=True) if (user, item) not in known]
    path.write_text("\n".join([head, *kept, *dealt]) + "\n")
