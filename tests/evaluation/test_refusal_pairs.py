"""The example that makes contrast pairs of other people's data."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import interp_transfer as it

EXAMPLE = Path(__file__).parents[2] / "examples" / "refusal_pairs.py"


def test_the_splits_of_the_data_are_those_of_the_task(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("refusal_pairs", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    counts = {"train": (5, 9), "val": (3, 3), "test": (4, 2)}
    for split, sizes in counts.items():
        for kind, size in zip(("harmful", "harmless"), sizes, strict=True):
            rows = [{"instruction": f"{kind} {split} {k}", "category": None} for k in range(size)]
            (tmp_path / f"{kind}_{split}.json").write_text(json.dumps(rows))
    example.main(str(tmp_path), str(tmp_path / "pairs.jsonl"))
    task = it.Task.from_jsonl(tmp_path / "pairs.jsonl", "no_refusal", chat=True)
    for split, name, size in (("train", "train", 5), ("validation", "val", 3), ("test", "test", 2)):
        assert len(task.prompts(split)) == size
        assert all(chat.messages[-1][1].startswith(f"harmful {name}") for chat in task.prompts(split))
        assert all(chat.messages[-1][1].startswith(f"harmless {name}") for chat in task.clean(split))
