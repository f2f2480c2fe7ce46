"""What somebody does who has two models and two lists of texts, and has never seen this package."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

import interp_transfer as it
from tests.checkpoints import byte_tokenizer, config


def test_two_lists_and_two_models_are_enough(tmp_path: Path) -> None:
    wanted = [f"the cat {i} sat" for i in range(80)]
    unwanted = [f"the dog {i} ran" for i in range(80)]
    task = it.Task.from_pairs(list(zip(wanted, unwanted, strict=True)), judge="lacks:dog", max_new_tokens=3)
    models = (AutoModelForCausalLM.from_config(config("llama", hidden_size=width)) for width in (16, 24))
    source, target = (it.load_model(model, tokenizer=byte_tokenizer()) for model in models)
    site = "blocks.2.hook_resid_pre"
    options: dict[str, Any] = {"mapper": "affine", "n": 4, "directions": 2, "seeds": 1, "variants": False}
    it.run(task, source, target, source_site=site, target_site=site, **options, out=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["schema"] == 2
    assert result["texts"]["of"].startswith(f"{result['texts']['n']} training prompts of the task, with answers by ")
    assert "moved" in result["conditions"] and "forced_first_token" not in result["conditions"]
    assert result["left_out"] == {"forced_first_token": "the task has no right answers"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Left out: forced first token, because the task has no right answers." in page
