"""Activation patching: which activations carry the difference between two prompts.

A corrupted prompt is run with one activation of a clean one, and a metric of the next-token logits is read: the more of the
metric is recovered, the more of the difference that activation carries (Vig et al. 2020; Meng et al. 2022; Heimersheim and
Nanda 2024). The rows may also come from another model through a mapper, or from a fine-tune unchanged (Prakash et al. 2024).
Attribution patching estimates all of these effects at once, to first order, from one gradient (Nanda 2023; Syed et al. 2023);
it errs where the model is far from linear between the two prompts, so confirm its results by activation patching.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.activations.capture import TOKENS_PER_BATCH, Activations, by_length, capture
from interp_transfer.interventions.patching.effects import Effects, Place, place_name
from interp_transfer.interventions.patching.prompt_pairs import Metric, PromptPairs
from interp_transfer.interventions.splice import splice
from interp_transfer.interventions.transforms import At, Transform
from interp_transfer.models.hooked_model import HookedModel, require_gradients
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import PromptLike

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Patching(Effects):
    """The effect of patching each activation: a row for each place, a column for each position.

    Attributes:
        kind: "activation" or "attribution".
        places: site, and head where heads were patched separately.
        positions: of the tokens, counted from the prompt's end: -1 is the last; None stands for all of them together.
        tokens: the first prompt's tokens at these positions.
    """

    kind: str
    places: tuple[Place, ...]
    positions: tuple[int | None, ...]
    tokens: tuple[str, ...]

    def plot(self) -> "Figure":
        """Return a heat map of places by tokens, in shares recovered."""
        from interp_transfer.plots.heatmap import patching_map

        title = f"{self.kind} patching, {len(self.clean)} prompts"
        return patching_map(self.recovered.tolist(), list(map(place_name, self.places)), list(self.tokens), title)

    def _labels(self, row: int, column: int) -> dict[str, Any]:
        site, head = self.places[row]
        return {"site": site, "head": head, "position": self.positions[column], "token": self.tokens[column]}

    def __repr__(self) -> str:
        i, k = self._largest()
        most = f"most {float(self.recovered[i, k]):.2f} at {place_name(self.places[i])}, token {self.tokens[k]!r}"
        return (
            f"Patching({self.kind}, {len(self.places)} places x {len(self.positions)} positions, n {len(self.clean)}, {most})"
        )


@dataclass(frozen=True, eq=False)
class Columns:
    """A transform of some columns alone, those of a head."""

    transform: Transform
    columns: slice

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """Return the rows, transformed in these columns."""
        out = a.clone()
        out[:, self.columns] = self.transform(a, at)[:, self.columns]
        return out


@torch.no_grad()
def activation_patching(
    model: HookedModel,
    clean: Sequence[PromptLike],
    corrupted: Sequence[PromptLike],
    metric: Metric,
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    *,
    by_position: bool = True,
    by_head: bool = False,
    donor: Activations | None = None,
    progress: bool = True,
) -> Patching:
    """Run corrupted prompts with each activation of the clean ones in turn.

    Args:
        model: any hooked model.
        clean: prompts that show the behaviour.
        corrupted: prompts of the same lengths in tokens that do not.
        metric: of the logits after the last token, such as ``logit_difference``.
        sites: hook-point names; ``*`` stands for every block.
        by_position: one token at a time, counted from the end as far back as the shortest prompt; else all tokens together.
        by_head: one head at a time, at sites of attention heads (``attn.hook_z``).
        donor: rows that replace those of the clean prompts, such as another model's through a mapper
            (``transfer.map_activations.mapped_activations``). Tokens without a row keep their own activation.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for prompts of unequal lengths, sites that cannot be edited, a metric of another shape or NaN, or a donor
            of other sites, widths or texts.
    """
    pairs = PromptPairs(model, clean, corrupted, sites, edit=True)
    rows = capture(model, clean, pairs.sites, progress=False) if donor is None else _checked_donor(donor, pairs)
    base, goal = pairs.score(metric, pairs.corrupted), pairs.score(metric, pairs.clean)
    places, positions = pairs.places(by_head), pairs.positions(by_position)
    effect = torch.zeros(len(clean), len(places), len(positions))
    with progress_bar("patches", progress, total=len(places) * len(positions)) as bar:
        for i, ((site, _), columns) in enumerate(places):
            for k, position in enumerate(positions):
                patch = splice(rows, site, site, positions="all" if position is None else position)
                patch = replace(patch, transform=Columns(patch.transform, columns))
                effect[:, i, k] = pairs.score(metric, pairs.corrupted, patch) - base
                bar.update()
    labels = tuple(place for place, _ in places), positions, pairs.tokens(positions)
    return Patching("activation", *labels, effect=effect, clean=goal, corrupted=base)


def attribution_patching(
    model: HookedModel,
    clean: Sequence[PromptLike],
    corrupted: Sequence[PromptLike],
    metric: Metric,
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    *,
    by_position: bool = True,
    by_head: bool = False,
) -> Patching:
    """Estimate ``activation_patching`` to first order: (clean - corrupted activation) times the metric's gradient.

    Takes two forward passes and one backward pass for all sites, heads and positions. Arguments and errors are the same; a
    quantized model is refused, too.
    """
    require_gradients(model, "attribution patching")
    pairs = PromptPairs(model, clean, corrupted, sites, edit=False)
    goal = pairs.score(metric, pairs.clean)
    clean_rows = capture(model, clean, pairs.sites, progress=False)
    places, positions = pairs.places(by_head), pairs.positions(by_position)
    effect, base = torch.zeros(len(clean), len(places), len(positions)), torch.zeros(len(clean))
    starts = [0, *torch.bincount(clean_rows.text_index).cumsum(0).tolist()]
    for batch in by_length([len(ids) for ids in pairs.corrupted], TOKENS_PER_BATCH):
        gradients, base[batch] = pairs.gradients(metric, batch)
        for row, text in enumerate(batch):
            length = len(pairs.corrupted[text])
            for i, ((site, _), columns) in enumerate(places):
                activation, gradient = (tensor[row, :length].flatten(1)[:, columns] for tensor in gradients[site])
                target = clean_rows[site][starts[text] : starts[text + 1], columns].to(activation)
                by_token = ((target - activation) * gradient).sum(dim=1).cpu()
                effect[text, i] = by_token[-pairs.shortest :] if by_position else by_token.sum()
    labels = tuple(place for place, _ in places), positions, pairs.tokens(positions)
    return Patching("attribution", *labels, effect=effect, clean=goal, corrupted=base)


def _checked_donor(donor: Activations, pairs: PromptPairs) -> Activations:
    """Return ``donor`` if its rows can replace those of the clean prompts.

    Raises:
        ValueError: for a site or a text without rows, rows of another width, or tokens that the prompts do not have.
    """
    own = capture(pairs.model, [""], pairs.sites, ids=pairs.corrupted[:1], progress=False)
    for site in pairs.sites:
        if site not in donor:
            raise ValueError(f"the donor holds nothing at {site!r} but at {', '.join(donor)}: give rows of that site too")
        if donor[site].shape[1] != own[site].shape[1]:
            raise ValueError(
                f"the donor's rows at {site!r} have width {donor[site].shape[1]}, the model's {own[site].shape[1]}: map "
                "them to it, see transfer.map_activations.mapped_activations"
            )
    lengths = torch.tensor([len(ids) for ids in pairs.clean])
    if missing := sorted(set(range(len(lengths))) - set(donor.text_index.tolist())):
        raise ValueError(f"the donor has no row of text {missing[0]}, of {len(lengths)}: give rows of all clean prompts")
    if (donor.text_index >= len(lengths)).any() or (donor.position >= lengths[donor.text_index]).any():
        raise ValueError(f"the donor has rows beyond the {len(lengths)} clean prompts: give rows of those, in their order")
    return donor
