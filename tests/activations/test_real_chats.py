"""Chats on the tokenizers of real models, where these are in the user's cache."""

from typing import Any

import pytest

from interp_transfer.activations.align import align
from interp_transfer.activations.spans import spans_of
from interp_transfer.io import cache_folder

SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
QWEN = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
CHAT = [
    {"role": "user", "content": "Write a short poem about the sea, please."},
    {"role": "assistant", "content": "Waves rise and fall, 3 gulls call 😀."},
    {"role": "user", "content": "Now make it cheerful — naïvely so!"},
]


def tokenizer(sha256: str) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415

    folder = cache_folder("gguf", sha256)
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"there is no model in {folder}: interp-transfer models get")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.mark.real
def test_smollm2_and_qwen_are_paired_by_role() -> None:
    small, qwen = tokenizer(SMOLLM2), tokenizer(QWEN)
    there, back = align(small, qwen, [CHAT]), align(qwen, small, [CHAT])
    assert there.peeks == back.peeks == 0
    assert (there.coverage, there.by_role["generation prompt"], there.by_role["assistant"]) == (1.0, (5, 5), (13, 13))
    assert back.by_role["generation prompt"] == (5, 6), "SmolLM2 has two tokens for 'assistant'"
    (spans,) = spans_of(qwen, [CHAT])
    end = spans.parts[-1]
    assert spans.pieces[end.first : end.stop] == ("<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ")
