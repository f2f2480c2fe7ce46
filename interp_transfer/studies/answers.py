"""Answers side by side: a model without steering, and steered by saved vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_transfer.activations.positions import Positions
from interp_transfer.evaluation.completions import completions_each
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.io import read_tensors
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.load import load_model
from interp_transfer.prompts.chats import PromptLike, as_prompt, as_user_message
from interp_transfer.vectors.exchange.read import is_own, read_vector
from interp_transfer.vectors.vector import SteeringVector


@dataclass(frozen=True)
class Steered:
    """A model and the ways in which it answers.

    Attributes:
        model: the model.
        settings: for each way by name, the interventions; none for the first one, "unsteered".
        system: system prompt of every chat.
        plain: read prompts as texts, not as chats.
        max_new_tokens: length of answers.
    """

    model: HookedModel
    settings: dict[str, tuple[Intervention, ...]]
    system: str | None = None
    plain: bool = False
    max_new_tokens: int = 64

    def answer(self, prompts: Sequence[PromptLike], progress: bool = True) -> list[dict[str, str]]:
        """Return for each prompt, alone and without those before it, the answer in each way."""
        asked = [as_prompt(prompt) if self.plain else as_user_message(prompt, self.system) for prompt in prompts]
        each = completions_each(self.model, asked, list(self.settings.values()), self.max_new_tokens, progress)
        return [dict(zip(self.settings, answers, strict=True)) for answers in zip(*each, strict=True)]


def steered(
    vectors: Sequence[str | Path],
    model: Any = None,
    *,
    mapper: str | Path | None = None,
    site: str | int | None = None,
    strengths: Sequence[float] | None = None,
    positions: Positions = "all",
    dtype: str = "auto",
    device: str | None = None,
    system: str | None = None,
    plain: bool = False,
    max_new_tokens: int = 64,
) -> Steered:
    """Load saved vectors and the model that they steer.

    Args:
        vectors: files of ``SteeringVector.save``, or those of other tools that ``vectors.exchange.read_vector`` reads, each of
            which is one way to answer.
        model: the model or its name; default: the name that is stored with the first vector.
        mapper: folder of a mapper that all vectors are moved through first; they are files of ``SteeringVector.save``.
        site: site of the vectors; needed for files that hold several or do not name it.
        strengths: strengths of every vector; default: the one that is stored with it, or 1.0.
        positions: the tokens at which the vectors are added.
        dtype: dtype of a model that is loaded by name.
        device: its device; default: a GPU if there is one.
        system: system prompt of every chat.
        plain: read prompts as texts, not as chats.
        max_new_tokens: length of answers.

    Raises:
        ValueError: for no vectors, damaged files, and vectors of another model or site than the mapper or the model has.
    """
    if not vectors:
        raise ValueError("there is no vector: give at least one file that vector.save or a run wrote")
    if plain and system is not None:
        raise ValueError("a plain text has no system prompt: leave out one of the two")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: an answer has at least one token")
    hooked, loaded = model_and_vectors(vectors, model, mapper=mapper, site=site, dtype=dtype, device=device)
    stems = [Path(name).stem for name in loaded]
    settings: dict[str, tuple[Intervention, ...]] = {"unsteered": ()}
    for (name, vector), stem in zip(loaded.items(), stems, strict=True):
        for strength in strengths or [stored_strength(name)]:
            called = stem if stems.count(stem) == 1 else name
            settings[f"{called} x {strength:g}"] = (vector.add(strength, positions),)
    return Steered(hooked, settings, system, plain, max_new_tokens)


def model_and_vectors(
    files: Sequence[str | Path],
    model: Any = None,
    *,
    mapper: str | Path | None = None,
    site: str | int | None = None,
    dtype: str = "auto",
    device: str | None = None,
) -> tuple[HookedModel, dict[str, SteeringVector]]:
    """Load saved vectors, by file, and the model that they steer; the arguments are those of ``steered``.

    Files that name their model are read before it is loaded, so that what is wrong with them shows at once.
    """
    names = [str(path) for path in files]
    early = {name for name in names if model is None or mapper is not None or is_own(name)}
    loaded = {name: read_vector(name, site=site) for name in names if name in early}
    if mapper is not None:
        through = Mapper.load(mapper)
        loaded = {name: through.transfer(vector) for name, vector in loaded.items()}
    hooked = load_model(model if model is not None else loaded[names[0]].model.name, **_options(model, dtype, device))
    return hooked, {name: loaded[name] if name in loaded else read_vector(name, hooked, site) for name in names}


def _options(model: Any, dtype: str, device: str | None) -> dict[str, Any]:
    return {"dtype": dtype, "device": device} if model is None or isinstance(model, str | Path) else {}


def stored_strength(path: str | Path) -> float:
    """The strength that is stored with a vector; 1.0 for files of other tools.

    Raises:
        ValueError: for one that is no number.
    """
    stored = read_tensors(path)[1].get("strength", "1.0") if is_own(path) else "1.0"
    try:
        return float(stored)
    except ValueError:
        raise ValueError(f"{str(path)!r} is damaged: its strength is {stored!r}, not a number") from None
