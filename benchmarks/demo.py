"""The demo from nothing to a registered model, then again with nothing changed: seconds, memory, and the result table.

`demo-cold` is `fusionrec demo-data` + `dvc repro` + `fusionrec register`, packages installed, the store empty.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from workspace import make, results, timed, write


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fusionrec-demo-") as place:
        folder, home = Path(place) / "project", Path(place) / "home"
        environment = make(folder, home)
        steps = (("fusionrec", "demo-data"), ("dvc", "repro"), ("fusionrec", "register"))
        cold = {" ".join(step): timed(folder, environment, *step) for step in steps}
        again = {" ".join(step): timed(folder, environment, *step) for step in steps[1:]}
        seconds, noop = sum(s for s, _ in cold.values()), sum(s for s, _ in again.values())
        memory = max(m for _, m in cold.values())
        rows = [
            {
                "case": "demo-cold",
                "ours": round(seconds, 1),
                "bound": 300,
                "unit": "s",
                "ratio_bound": round(300 / seconds, 2),
            },
            {
                "case": "demo-cold memory",
                "ours": round(memory, 2),
                "bound": 4,
                "unit": "GiB",
                "ratio_bound": round(4 / memory, 2),
            },
            {"case": "demo-noop", "ours": round(noop, 1), "bound": 30, "unit": "s", "ratio_bound": round(30 / noop, 2)},
        ]
        rows = [{**row, "peer": None, "peer_name": None, "ratio_peer": None} for row in rows]
        parts = {step: round(s, 1) for step, (s, _) in cold.items()}
        write("demo", {"rows": rows, "steps": parts, **results(folder, home)})
        for row in rows:
            print(f"{row['case']}: {row['ours']} {row['unit']} (bound {row['bound']})")


if __name__ == "__main__":
    main()
