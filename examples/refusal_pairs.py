"""Contrast pairs for refusal, from the data of Arditi et al. (2024).

``python examples/refusal_pairs.py FOLDER pairs.jsonl`` reads the folder ``dataset/splits`` of GitHub andyrdt/refusal_direction
and writes pairs of a harmless and a harmful instruction, paired at random: 128 for training, 32 for validation, 200 for
testing, as far as there are so many. Then::

    interp-transfer run --pairs pairs.jsonl --judge no_refusal --chat --source qwen2.5-coder-0.5b-instruct \\
        --target qwen2.5-coder-1.5b-instruct --sites 16 --mapper affine --n 100
"""

import json
import random
import sys
from pathlib import Path

COUNTS = {"train": ("train", 128), "validation": ("val", 32), "test": ("test", 200)}


def instructions(folder: Path, kind: str, split: str) -> list[str]:
    rows = json.loads((folder / f"{kind}_{split}.json").read_text(encoding="utf-8"))
    texts = [row["instruction"] for row in rows]
    random.Random(0).shuffle(texts)
    return texts


def main(folder: str, out: str) -> None:
    lines = []
    for split, (name, count) in COUNTS.items():
        harmless, harmful = (instructions(Path(folder), kind, name)[:count] for kind in ("harmless", "harmful"))
        pairs = zip(harmless, harmful, strict=False)  # the shorter of the two decides
        lines += [json.dumps({"positive": a, "negative": b, "split": split}, ensure_ascii=False) for a, b in pairs]
    Path(out).write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(f"{len(lines)} pairs in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
