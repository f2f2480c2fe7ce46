"""The example of a task of one's own, on two organisms."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_task.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("own_task", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_example_compares(organism_s: Any, organism_m: Any):
    """Its vector, moved by a map, does to the backdoor what the native one does, and a random one does not."""
    own = example()
    task = replace(own.my_task(), max_new_tokens=16)
    vector = it.extract(organism_s, task.contrast("train"), own.SOURCE_SITE)
    texts = task.texts("train")
    pairs = it.collect(organism_s, organism_m, texts, own.SOURCE_SITE, own.TARGET_SITE, progress=False)
    moved = it.fit(pairs, "affine", progress=False).transfer(vector)
    result = it.compare(organism_m, task, {"moved": it.add(moved)}, n=12, progress=False)
    rates = {name: c.success.value for name, c in result.conditions.items()}
    assert rates["unsteered"] == 0.0
    assert rates["moved"] > rates["random"] + 0.2


@pytest.mark.slow
def test_the_example_runs_through_the_whole_pipeline(tmp_path: Path):
    own = example()
    task = replace(own.my_task(), max_new_tokens=8)
    result = it.run(
        task,
        own.SOURCE,
        own.TARGET,
        mapper="affine",
        source_site=own.SOURCE_SITE,
        target_site=own.TARGET_SITE,
        n=6,
        directions=2,
        seeds=1,
        variants=False,
        out=tmp_path / "run",
        progress=False,
    )
    assert (result.task, result.details["description"]) == ("kindness", task.description)
    assert set(result.conditions) >= {"unsteered", "native", "moved", "random", "shuffled", "forced_first_token"}
    assert (tmp_path / "run" / "report.html").is_file()
