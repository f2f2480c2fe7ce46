"""Whether a few massive dimensions decide where a difference in means points, and what the robust one makes of it.

``python examples/massive_dimensions.py MODEL DATA BLOCK ...`` takes true and false statements about cities (Geometry of Truth,
``DATA/truth/cities.csv``): 200 of each to find a direction, at most 150 of each, about other cities, to tell apart by it. DATA
is the folder that ``interp-transfer reproduce --edition real`` takes.
"""

import sys
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score

import interp_transfer as it
from interp_transfer.paper.given import statements
from interp_transfer.stats import auroc_interval
from interp_transfer.vectors.extract import FEW, difference_in_means, robust

TRAIN, TEST = 200, 150


def main(name: str, data: str, *blocks: str) -> None:
    model = it.load_model(name)
    false, true = (side[:TRAIN] for side in statements(Path(data), "cities", "train"))
    false_test, true_test = (side[:TEST] for side in statements(Path(data), "cities", "test"))
    sites = [f"blocks.{block}.hook_resid_pre" for block in blocks]
    read = [it.capture(model, texts, sites, "last", progress=False) for texts in (true, false, true_test, false_test)]
    labels = [1] * len(true_test) + [0] * len(false_test)
    for site in sites:
        positive, negative, *tested = (acts[site].float() for acts in read)
        told = []
        for method in (difference_in_means, robust):
            direction = method(positive, negative)
            squares = direction.square()
            share = float(squares.topk(FEW).values.sum() / squares.sum())
            area = roc_auc_score(labels, (torch.cat(tested) @ direction).tolist())
            low, high = auroc_interval(area, len(true_test), len(false_test))
            told.append(f"{method.__name__}: AUROC {area:.3f} [{low:.3f}, {high:.3f}], {FEW} dimensions hold {share:.0%}")
        print(f"{site} (n {len(labels)}):", "; ".join(told), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
