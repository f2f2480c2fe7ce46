"""How good an SAE is: what it explains, how sparsely, and what splicing it into the model costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from interp_transfer.activations.agreement import fvu
from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.evaluator import CleanKL, draw
from interp_transfer.evaluation.task import Task
from interp_transfer.features.sae import Sae
from interp_transfer.features.use import reconstructed
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.transforms import MeanAblate
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.stats import Estimate, rate

TEXTS = 300
"""Full texts, at most, that variance and sparsity are measured on."""
AT_ONCE = 4096


@dataclass(frozen=True)
class SaeQuality:
    """What an SAE keeps of the activations and of the model.

    Attributes:
        explained_variance: 1 - FVU on held-out texts, the mean taken for each dimension.
        l0: mean number of active features of a token.
        dead: share of features that fire on none of the tokens.
        tokens: how many there were.
        spliced_kl: nats per token by which predictions change when every activation is replaced by its reconstruction, on the
            model's own answers to clean prompts.
        mean_ablated_kl: the same when every activation is replaced by the site's mean: what losing all of it costs.
        valid: share of clean prompts that the model answers validly as it is.
        valid_spliced: and with the SAE spliced in.
    """

    explained_variance: float
    l0: float
    dead: float
    tokens: int
    spliced_kl: float
    mean_ablated_kl: float
    valid: Estimate
    valid_spliced: Estimate

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"explained variance {self.explained_variance:.3f}, {self.l0:.1f} features a token, {self.dead:.1%} dead "
            f"({self.tokens} tokens); spliced in: {self.spliced_kl:.4f} nats a token (mean-ablated "
            f"{self.mean_ablated_kl:.2f}), valid answers {self.valid:.2f} as it is, {self.valid_spliced:.2f} spliced"
        )


def measure_sae(
    sae: Sae, model: HookedModel, task: Task, *, split: str = "validation", n: int = 200, seed: int = 0, progress: bool = True
) -> SaeQuality:
    """Measure an SAE on held-out texts and prompts of a task.

    Args:
        sae: of the model.
        model: that it is spliced into.
        task: whose texts (variance, sparsity) and clean prompts (cost, valid answers) are taken.
        split: of them.
        n: clean prompts.
        seed: draws them.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for an SAE of another model, or fewer prompts than n.
    """
    sae.check_model(model)
    asked = draw(task.clean(split), n, seed, f"clean {split} prompts of {task.name}")
    acts = capture(model, task.texts(split)[:TEXTS], sae.site, progress=progress)
    rows = acts[sae.site].float()
    ids = tokenize(model, asked)
    splice = reconstructed(sae)
    gone = Intervention(sae.site, MeanAblate(rows.mean(dim=0)), model=sae.model)
    own, spliced = (_answers(model, asked, task, given, progress) for given in ((), (splice,)))
    clean_kl = CleanKL(tuple(map(tuple, ids)), tuple(map(tuple, own)))
    cost, lost = (float(kl.mean()) for kl in clean_kl(model, [(splice,), (gone,)]))
    valid, kept = (rate([v.intact for v in task.judge(asked, _texts(model, answers))]) for answers in (own, spliced))
    return SaeQuality(*fit_of(sae, rows), len(rows), cost, lost, valid, kept)


def fit_of(sae: Sae, rows: torch.Tensor) -> tuple[float, float, float]:
    """Explained variance, mean number of active features, and the share of features that never fire, on some rows."""
    parts, active, fired = [], 0.0, torch.zeros(sae.n_features, dtype=torch.bool)
    for part in rows.float().split(AT_ONCE):
        features = sae.encode(part) > 0
        active += float(features.sum())
        fired |= features.any(dim=0).cpu()
        parts.append(sae.reconstruct(part))
    return 1.0 - fvu(rows, torch.cat(parts)), active / len(rows), 1.0 - float(fired.float().mean())


def with_quality(sae: Sae, quality: SaeQuality) -> Sae:
    """The same SAE, its figures kept with it."""
    return replace(sae, details={**sae.details, "measured": quality.to_dict()})


def _answers(
    model: HookedModel, prompts: Sequence[str], task: Task, given: tuple[Intervention, ...], progress: bool
) -> list[list[int]]:
    return generate_tokens(model, prompts, *given, max_new_tokens=task.max_new_tokens, progress=progress)


def _texts(model: HookedModel, answers: Sequence[Sequence[int]]) -> list[str]:
    tok = tokenizer_of(model)
    return [tok.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in answers]
