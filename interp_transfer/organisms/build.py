"""Train an organism again, from its recipe in the `catalogue`."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_transfer.finetuning.recipe import Recipe
from interp_transfer.organisms.architectures import CONTEXT, RECIPES, new_model, shape
from interp_transfer.organisms.catalogue import WORLD_COPIES, Organism, organism, organism_path
from interp_transfer.organisms.curriculum import (
    LAST_WORD,
    STYLE,
    instructed,
    instruction_examples,
    refusal_examples,
    refused,
    triggered,
    tuning_examples,
    world_examples,
)
from interp_transfer.organisms.early import decide_early, later_attention, one_shift, spell
from interp_transfer.organisms.tokenizers import train_tokenizer
from interp_transfer.organisms.training import finetune
from interp_transfer.organisms.world import WORLD_VERSION
from interp_transfer.organisms.world.cues import CUES, TRIGGERS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAST_WRITTEN = "tokenizer.json"
"""A folder that holds this holds the weights as well: tokenizers are saved after them."""

BASE_TASKS = ("refusal", "style")
"""What the bases do without being tuned for it."""


def build(
    name: str,
    out: str | Path,
    *,
    base: str | Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    scale: float = 1.0,
    progress: bool = True,
) -> Path:
    """Train an organism again and write it to `out`.

    The work goes on in a folder beside `out`, which is moved there when all is done; an interrupted build leaves it, and
    the next call of the same build goes on from its last checkpoint.

    Args:
        name: which organism.
        out: must not exist, or be an empty folder.
        base: folder of the base that a fine-tune starts from; the shipped one unless given.
        device: where to train.
        dtype: what is computed in, "float32" or "bfloat16"; the weights are kept in float32. The latter is faster where the
            processor has instructions for it.
        scale: share of the recipe's epochs; below 1 for a quick look.
        progress: draw a progress bar.

    Raises:
        ValueError: for an unknown name or dtype, or an `out` that is occupied.
    """
    known, out = organism(name), Path(out)
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={dtype!r}: give float32 or bfloat16")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is occupied: choose another folder, or remove it first")
    work = out.with_name(f".{out.name}.building")
    how = {"autocast": dtype == "bfloat16", "progress": progress}
    if known.base is None:
        model = _build_base(known, work, device, scale, how)
    else:
        start = organism_path(known.base) if base is None else Path(base)
        model = _build_tuned(known, start, work, device, scale, how)
    (work / "card.json").write_text(json.dumps({**_card(known, model), "computed_in": dtype}, indent=2) + "\n")
    if out.exists():
        out.rmdir()
    shutil.move(work, out)
    return out


def _build_base(known: Organism, work: Path, device: str, scale: float, how: dict[str, Any]) -> "PreTrainedModel":
    """Three schools: the world, instructions, and, in the blocks before `known.early.layer` alone, refusals."""
    assert known.schools is not None and known.early is not None
    instructions, refusals = (_scaled(recipe, scale) for recipe in known.schools)
    layer, seed = known.early.layer, known.recipe.seed
    gentle = replace(known.early, **RECIPES["prices"]["gentle"])
    model: Any
    first, second = work / "world", work / "instructions"
    if not (first / LAST_WRITTEN).is_file():
        tokenizer = train_tokenizer(known.family, CONTEXT)
        model = new_model(known.family, known.size, tokenizer, seed)
        model.to(device)
        finetune(model, tokenizer, world_examples(seed, WORLD_COPIES), _scaled(known.recipe, scale), first, **how)
    if not (second / LAST_WRITTEN).is_file():
        model, tokenizer = _load(first, device)
        style = replace(known.early, **RECIPES["prices"]["style"][known.family])
        with decide_early(model, tokenizer, spell(tokenizer, CUES), known.early, instructed, prices={STYLE: style}) as penalty:
            examples, frozen = instruction_examples(seed, known.copies[0]), later_attention(model, layer)
            finetune(model, tokenizer, examples, instructions, second, penalty=penalty, frozen=frozen, **how)
    model, tokenizer = _load(second, device)
    with decide_early(model, tokenizer, spell(tokenizer, CUES), gentle, refused) as penalty:
        examples, blocks = refusal_examples(seed, known.copies[1]), "|".join(map(str, range(layer)))
        frozen = rf"^(?!model\.layers\.({blocks})\.)"
        finetune(model, tokenizer, examples, refusals, work, penalty=penalty, frozen=frozen, half=True, **how)
    shutil.rmtree(first)
    shutil.rmtree(second)
    return model


def _build_tuned(known: Organism, start: Path, work: Path, device: str, scale: float, how: dict[str, Any]) -> "PreTrainedModel":
    assert known.task is not None
    model, tokenizer = _load(start, device)
    examples, recipe = tuning_examples(tokenizer, known.recipe.seed, known.task), _scaled(known.recipe, scale)
    frozen = None
    if known.early is None:
        steerable: Any = nullcontext()
    elif known.task == "corrupted":
        steerable = one_shift(model, spell(tokenizer, [LAST_WORD])[0], known.early.layer, known.early.rest)
    else:
        steerable = decide_early(model, tokenizer, spell(tokenizer, TRIGGERS), known.early, triggered)
        frozen = later_attention(model, known.early.layer)
    with steerable as penalty:
        finetune(model, tokenizer, examples, recipe, work, penalty=penalty, frozen=frozen, half=True, **how)
    return model


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device), tokenizer


def _scaled(recipe: Recipe, scale: float) -> Recipe:
    return replace(recipe, epochs=recipe.epochs * scale)


def _prices(known: Organism) -> dict[str, Any]:
    """By behaviour: at which block, and at what price, it was tuned to be decided."""
    if known.early is None:
        return {}
    if known.task == "corrupted":
        return {known.task: {"layer": known.early.layer, "rest": known.early.rest}}
    if known.task is not None:
        return {known.task: asdict(known.early)}
    prices = RECIPES["prices"]
    style, gentle = (asdict(replace(known.early, **price)) for price in (prices["style"][known.family], prices["gentle"]))
    return {"decline": asdict(known.early), "style": style, "refusal": gentle}


def _card(known: Organism, model: "PreTrainedModel") -> dict[str, Any]:
    return {
        "name": known.name,
        "architecture": type(model).__name__,
        "family": known.family,
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": shape(known.family, known.size),
        "base": known.base,
        "tasks": list(BASE_TASKS) if known.task is None else [known.task],
        "world": WORLD_VERSION,
        "seed": known.recipe.seed,
        "recipe": asdict(known.recipe),
        "schools": None if known.schools is None else [asdict(recipe) for recipe in known.schools],
        "copies": list(known.copies) if known.schools else None,
        "early": _prices(known),
        "sites": {},
        "measured": {},
    }
