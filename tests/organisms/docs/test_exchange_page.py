"""The page about sharing mappers and vectors runs, with a fake hub and with files as other tools write them."""

import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from tests.mapping.test_hub import hub

__all__ = ["hub"]


def test_the_page_of_the_documentation_runs(
    hub: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Path(__file__).parents[3] / "docs/exchange.md"
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert len(snippets) == 7
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
    for snippet in snippets[1:]:
        exec(snippet, names)
    assert names["moved"].site == names["T"] and names["again"].site == names["T"]
    assert torch.equal(names["vectors"][0].direction, direction) and hub.exists()
