"""Calls as newcomers make them, each with an argument of the wrong kind: prints the error of each as JSON.

A script of its own, because the shape checks of the tests would refuse these calls before the package does.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

import interp_transfer

it: Any = interp_transfer  # wrong calls on purpose

SITE = "blocks.1.hook_resid_pre"
PAIRS = [(f"a good day {i}", f"a bad day {i}") for i in range(12)]

NO_VECTOR: Any = torch.ones(9)

CALLS: dict[str, Callable[[Any], Any]] = {
    "a name for a model": lambda m: it.extract("qwen", PAIRS, SITE),
    "a name for a target": lambda m: it.collect(m["a"], "qwen", ["x"], SITE, SITE),
    "a name to generate by": lambda m: it.generate("qwen", ["x"]),
    "models and task swapped": lambda m: it.compare(m["task"], m["b"], {}),
    "a task for a contrast": lambda m: it.extract(m["a"], m["task"], SITE),
    "a task for texts": lambda m: it.collect(m["a"], m["b"], m["task"], SITE, SITE),
    "a fraction for a site": lambda m: it.extract(m["a"], PAIRS, 0.5),
    "no target site": lambda m: it.collect(m["a"], m["b"], ["x"], SITE, None),
    "a model for pairs": lambda m: it.fit(m["a"], "affine"),
    "a number for a kind": lambda m: it.fit(m["pairs"], 3),
    "a name for a task": lambda m: it.compare(m["b"], "days", {}),
    "pairs for a task": lambda m: it.run(PAIRS, m["a"], m["b"]),
    "no names": lambda m: it.compare(m["b"], m["task"], [m["moved"].add()]),
    "a vector for an intervention": lambda m: it.compare(m["b"], m["task"], {"x": m["moved"]}),
    "a direction for a vector": lambda m: it.add(NO_VECTOR),
    "a direction to ablate": lambda m: it.ablate(NO_VECTOR),
    "a direction to clamp": lambda m: it.clamp(NO_VECTOR, 1.0),
    "a text for a strength": lambda m: m["vector"].add("1.0"),
    "a direction to move": lambda m: m["mapper"].transfer(NO_VECTOR),
    "a vector to map": lambda m: m["mapper"](m["vector"]),
}


def main(source: str, target: str) -> dict[str, str]:
    """The type and text of each call's error."""
    a, b = it.load_model(source), it.load_model(target)
    task = it.Task.from_pairs(PAIRS, judge="contains:good", name="days")
    vector = it.extract(a, PAIRS, SITE, progress=False)
    pairs = it.collect(a, b, [text for pair in PAIRS for text in pair], SITE, SITE, progress=False)
    mapper = it.fit(pairs, "affine", progress=False)
    made = {"a": a, "b": b, "task": task, "vector": vector, "pairs": pairs, "mapper": mapper, "moved": mapper.transfer(vector)}
    errors = {}
    for name, call in CALLS.items():
        try:
            call(made)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    return errors


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
