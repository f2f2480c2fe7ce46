"""Where to steer one model: a short list of blocks by a gradient, then a trial of those on validation prompts.

The first-order effect of a block's own vector (`first_order`) takes one backward pass for all blocks. The few blocks with the
largest one are tried: the search of `strengths` finds the strength of each within the clean-KL budget, and the block whose
vector leaves most answers intact is chosen. A choice is kept in a file, because it takes minutes on a model of a billion
parameters and is the same each time.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp_transfer.activations.positions import describe
from interp_transfer.evaluation.evaluator import evaluator
from interp_transfer.evaluation.judges.rules import OneByOne
from interp_transfer.evaluation.kept import Kept, about_model
from interp_transfer.evaluation.task import Task
from interp_transfer.io import checked, hashed, write_json
from interp_transfer.models.hooked_model import HookedModel, huggingface_model, is_quantized
from interp_transfer.models.sites import residual_sites
from interp_transfer.search.first_order import NothingToPredict, first_order
from interp_transfer.search.strengths import search_strengths
from interp_transfer.vectors.extract import extract_each

FORMAT = "interp_transfer.site/1"
FEW = 3
"""Blocks that are tried."""
PROMPTS = 16
"""Validation prompts, and clean ones, of the trial."""
MIDDLE = (1 / 3, 2 / 3)
"""Relative depths between which blocks are tried if no gradient ranks them."""
APART = 6
"""The depth divided by this is the smallest distance of two blocks that are tried: neighbours do nearly the same."""


@dataclass(frozen=True)
class SiteSearch:
    """A site, and how it was chosen.

    Attributes:
        site: hook-point name.
        predicted: by site, the first-order effect of its vector in logits; empty if depth alone made the short list.
        tried: by site, strength, success, intact and clean KL of its vector on validation prompts.
        budget: clean KL that a strength was allowed to cost, in nats per token.
        n: number of validation prompts.
    """

    site: str
    predicted: dict[str, float]
    tried: dict[str, dict[str, float]]
    budget: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON stores them."""
        return asdict(self)

    def __str__(self) -> str:
        by = "first-order effect" if self.predicted else "depth"
        chosen = self.tried[self.site]
        return (
            f"{self.site}: best of {len(self.tried)} blocks that {by} preselects, success {chosen['success']:.2f}, intact "
            f"{chosen['intact']:.2f} on {self.n} validation prompts"
        )


def find_site(
    model: HookedModel,
    task: Task,
    *,
    few: int = FEW,
    n: int = PROMPTS,
    method: str = "difference_in_means",
    seed: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> SiteSearch:
    """Find the block at whose input the task's vector steers a model best.

    Args:
        model: any hooked model.
        task: contrast, prompts and judge.
        few: number of blocks to try.
        n: number of validation prompts, and of clean ones; all if there are fewer.
        method: how the vector is extracted, a name as for `extract`.
        seed: draws the prompts.
        cache: folder in which choices are kept, by model, version of the package, task and the arguments above; a search that
            was stopped resumes from it. A task whose judge is a function
            without source code, or a closure, is not kept.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for fewer than one block to try, or a damaged file in the cache, with its name.
    """
    if few < 1:
        raise ValueError(f"few={few}: try at least one block")
    chosen_by = {"few": few, "apart": APART, "n": n, "method": method, "seed": seed}
    key = _key(model, task, chosen_by) if cache is not None else None
    file = Path(cache) / f"{hashed(key)}.json" if cache is not None and key is not None else None
    kept = Kept(file.with_suffix(".resume") if file is not None else None)
    if file is not None and file.is_file():
        kept.remove()  # of a process that was killed when it had written the file
        return _read(file)
    sites = residual_sites(model)[1:]
    vectors = extract_each(model, task.contrast("train"), sites, task.read, method=method, seed=seed, progress=progress)
    count = min(n, len(task.prompts("validation")))
    predicted: dict[str, float] = {}
    if not is_quantized(huggingface_model(model)):
        with suppress(NothingToPredict):
            gradient = first_order(model, task, sites, n=count, seed=seed)
            predicted = {site: float(vectors[site].direction.float() @ gradient[site]) for site in sites}
    short = _apart(sites, predicted, few) if predicted else _spread(sites, few)
    validation = evaluator(model, task, "validation", n=count, seed=seed, clean_prompts=count, kept=kept)
    searches = search_strengths(validation, {site: vectors[site] for site in short}, progress=progress)
    best = max(short, key=lambda site: (searches[site].chosen.intact.value, searches[site].chosen.success.value))
    tried = {site: search.chosen.values() for site, search in searches.items()}
    found = SiteSearch(best, predicted, tried, float(task.budget), count)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"format": FORMAT, "key": key, **found.to_dict()})
        kept.remove()
    return found


def _apart(sites: Sequence[str], predicted: Mapping[str, float], few: int) -> list[str]:
    """The sites with the largest predictions of which no two are neighbours; then the best others, if more are wanted."""
    ranked = sorted(range(len(sites)), key=lambda k: -predicted[sites[k]])
    chosen: list[int] = []
    for k in ranked:
        if all(abs(k - other) >= len(sites) / APART for other in chosen):
            chosen.append(k)
    return [sites[k] for k in (chosen + [k for k in ranked if k not in chosen])[:few]]


def _spread(sites: Sequence[str], few: int) -> list[str]:
    """Sites that are spread evenly over the middle of a model."""
    low, high = (share * (len(sites) - 1) for share in MIDDLE)
    places = [low + (high - low) * k / max(few - 1, 1) for k in range(few)]
    return list(dict.fromkeys(sites[round(place)] for place in places))


def _key(model: HookedModel, task: Task, arguments: Mapping[str, int | str]) -> dict[str, Any] | None:
    """What a choice depends on; None if the judge cannot be told from others."""
    judge = task.judge.one if isinstance(task.judge, OneByOne) else task.judge
    if getattr(judge, "__closure__", None):
        return None  # what it has enclosed does not show in its source
    try:
        judged = repr(judge) if hasattr(judge, "__dataclass_fields__") else inspect.getsource(judge)
    except (OSError, TypeError):
        return None
    data = [list(map(str, part)) for part in (task.contrast("train"), task.prompts("validation"), task.clean("validation"))]
    where, read = describe(task.positions), describe(task.read)
    about = [task.name, judged, data, where, read, task.max_new_tokens, task.budget]
    return {"model": about_model(model), "task": task.name, "about": hashed(about), **arguments}


def _read(file: Path) -> SiteSearch:
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ValueError(f"it is no file of the format {FORMAT}")
        return checked(SiteSearch, {name: value for name, value in plain.items() if name not in ("format", "key")})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error}): remove it, and the site is searched again") from error
