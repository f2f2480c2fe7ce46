"""Quality of an SAE: explained variance, sparsity, and the cost of splicing it into the model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from interp_transfer.activations.agreement import fvu
from interp_transfer.activations.capture import capture
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.evaluation.evaluator import draw
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
"""Maximum number of texts that variance and sparsity are measured on."""
AT_ONCE = 4096


@dataclass(frozen=True)
class SaeQuality:
    """Figures of an SAE on held-out texts and clean prompts.

    Attributes:
        explained_variance: 1 - FVU on held-out texts, the mean taken for each dimension.
        l0: mean number of active features of a token.
        dead: share of features that fire on none of the tokens.
        tokens: number of tokens.
        spliced_kl: divergence of the predictions when every activation is replaced by its reconstruction, in nats per token of
            the model's own answers to clean prompts.
        mean_ablated_kl: the same when every activation is replaced by the site's mean.
        valid: share of clean prompts to which the unsteered model's answer is valid.
        valid_spliced: the same with the SAE spliced in.
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
        """Return the fields as JSON stores them."""
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
        sae: an SAE of the model.
        model: the model.
        task: its texts are used for variance and sparsity, its clean prompts for the cost and valid answers.
        split: of texts and prompts.
        n: number of clean prompts.
        seed: draws the clean prompts.
        progress: show bars when it takes longer than two seconds.

    Raises:
        ValueError: for an SAE of another model, or fewer prompts than n.
    """
    sae.check_model(model)
    prompts = draw(task.clean(split), n, seed, f"clean {split} prompts of {task.name}")
    acts = capture(model, task.texts(split)[:TEXTS], sae.site, progress=progress)
    rows = acts[sae.site].float()
    ids = tokenize(model, prompts)
    splice = reconstructed(sae)
    ablation = Intervention(sae.site, MeanAblate(rows.mean(dim=0)), model=sae.model)
    own, spliced = (_answers(model, prompts, task, setting, progress) for setting in ((), (splice,)))
    clean_kl = CleanKL(tuple(map(tuple, ids)), tuple(map(tuple, own)))
    cost, lost = (float(kl.mean()) for kl in clean_kl(model, [(splice,), (ablation,)]))
    valid, kept = (rate([v.intact for v in task.judge(prompts, _texts(model, answers))]) for answers in (own, spliced))
    return SaeQuality(*fit_of(sae, rows), len(rows), cost, lost, valid, kept)


def fit_of(sae: Sae, rows: torch.Tensor) -> tuple[float, float, float]:
    """Return explained variance, mean number of active features, and the share of features that never fire, on rows."""
    reconstructions, active, fired = [], 0.0, torch.zeros(sae.n_features, dtype=torch.bool)
    for block in rows.float().split(AT_ONCE):
        features = sae.encode(block) > 0
        active += float(features.sum())
        fired |= features.any(dim=0).cpu()
        reconstructions.append(sae.reconstruct(block))
    return 1.0 - fvu(rows, torch.cat(reconstructions)), active / len(rows), 1.0 - float(fired.float().mean())


def with_quality(sae: Sae, quality: SaeQuality) -> Sae:
    """Return the SAE with its figures in ``details``."""
    return replace(sae, details={**sae.details, "measured": quality.to_dict()})


def _answers(
    model: HookedModel, prompts: Sequence[str], task: Task, setting: tuple[Intervention, ...], progress: bool
) -> list[list[int]]:
    return generate_tokens(model, prompts, *setting, max_new_tokens=task.max_new_tokens, progress=progress)


def _texts(model: HookedModel, answers: Sequence[Sequence[int]]) -> list[str]:
    tok = tokenizer_of(model)
    return [tok.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in answers]
