"""Seconds from a key to the first token of the explorer, on a real model: python -m benchmarks.explorer [MODEL [TARGET]].

A prompt is typed on, key by key; then the strength is moved. The page waits for `TYPED` or `SLID` after the last key or
movement (`reporting/templates/live.js`), which is added.
"""

import sys
import time
from statistics import median
from typing import Any

import torch

import interp_transfer as it
from interp_transfer.explorer.opening import ExploreOptions, session

TYPED, SLID = 0.25, 0.1
PROMPT = "What should I cook for dinner tonight if I have only rice, eggs"
TIMES = 5


def measure(run: Any) -> tuple[float, float]:
    """Median and largest number of seconds to the first token."""
    seconds = [run(k) for k in range(TIMES)]
    return median(seconds), max(seconds)


def main() -> None:
    names = sys.argv[1:] or ["smollm2-135m-instruct"]
    models = [it.load_model(name, dtype="float32") for name in names]
    task = it.trait_task("cheerful", "gloomy")
    both = len(models) > 1
    own = session(models[0], models[1], task, options=ExploreOptions()) if both else session(models[0], task)
    print(own.slow or f"live; {torch.get_num_threads()} threads")

    def first(**changes: Any) -> float:
        began, tokens = time.perf_counter(), []
        state = {**own.state.to_dict(), "chat": True, "example": None, "colour": "", "max_new_tokens": 16, **changes}
        emit = lambda event: tokens.append(time.perf_counter()) if event["type"] == "text" else None  # noqa: E731
        own.handle({"type": "run", "run": "r", "state": state}, emit)
        return tokens[0] - began

    began = time.perf_counter()
    first(prompt=PROMPT)
    print(f"the first run, with extraction{' and mapper' if len(models) > 1 else ''}: {time.perf_counter() - began:.1f} s")
    typed = measure(lambda k: TYPED + first(prompt=PROMPT + ", beans"[: k + 2]))
    print(f"key to first token: median {typed[0]:.2f} s, largest {typed[1]:.2f} s, n = {TIMES}")

    def slid(k: int) -> float:
        steered: list[float] = []
        began = time.perf_counter()
        state = {**own.state.to_dict(), "chat": True, "example": None, "prompt": PROMPT, "colour": "", "max_new_tokens": 16}

        def emit(event: dict[str, Any]) -> None:
            if event["type"] == "text" and "unsteered" not in event["panel"]:
                steered.append(time.perf_counter())

        own.handle({"type": "run", "run": "r", "state": {**state, "strength": 1.1 + k / 10}}, emit)
        return SLID + steered[0] - began

    moved = measure(slid)
    print(f"slider to first steered token: median {moved[0]:.2f} s, largest {moved[1]:.2f} s, n = {TIMES}")


if __name__ == "__main__":
    main()
