"""The page about sharing mappers and vectors runs, with a fake hub and with files as other tools write them."""

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tests.mapping.test_hub import hub
from tests.peer_files import document, write_profile, write_steering_vector

__all__ = ["hub"]


def test_the_page_of_the_documentation_runs(
    hub: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Path(__file__).parents[3] / "docs/exchange.md"
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert len(snippets) == 9
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippets[0], names)
    width = int(names["source"].cfg.d_model)
    torch.save(torch.randn(width), "direction.pt")
    torch.save({1: torch.randn(width), 2: torch.randn(width)}, "by_layer.pt")
    direction = torch.randn(width)
    theirs = gguf.GGUFWriter("theirs.gguf", "controlvector")
    theirs.add_string("controlvector.model_hint", "qwen2")
    theirs.add_tensor("direction.2", direction.numpy())
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    np.savez("theirs.npz", **{"2": direction.numpy(), "3": -direction.numpy()}, allow_pickle=False)
    write_steering_vector(Path("steering_vector.pt"), {2: direction})
    Path("vectors/sycophancy").mkdir(parents=True)
    torch.save(direction, "vectors/sycophancy/vec_layer_2_Llama-2-7b-chat-hf.pt")
    write_profile(Path("profile.safetensors"), {"layer_2": direction})
    Path("neuronpedia.json").write_text(json.dumps(document(vector=direction.tolist(), hookName=names["S"])))
    for snippet in snippets[1:]:
        exec(snippet, names)
    assert names["moved"].site == names["T"] and names["again"].site == names["T"]
    for one in (names["vectors"][0], names["by_layer"][0], names["published"]):
        assert torch.equal(one.direction, direction)
    assert hub.exists() and Path("upload.json").exists() and Path("vllm.json").exists()
