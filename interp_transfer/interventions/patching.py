"""Activation patching: which activations carry the difference between two prompts.

A corrupted prompt is run with one activation taken from a clean one, and a metric of the next-token logits is read: as far as
it comes back, that activation carries what the prompts differ in (Vig et al. 2020; Meng et al. 2022; Heimersheim and Nanda
2024). The rows may also be another model's, through a mapper, or a fine-tune's as they are (Prakash et al. 2024). Attribution
patching estimates all of these effects at once, to first order, from one gradient (Nanda 2023; Syed et al. 2023); it errs
where the model is far from linear between the two, so confirm what it points to.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.capture import (
    SECONDS_BEFORE_PROGRESS,
    TOKENS_PER_BATCH,
    Activations,
    by_length,
    capture,
    hooked,
    logits_of,
)
from interp_transfer.activations.positions import token_spans
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.splice import splice
from interp_transfer.interventions.transforms import At, Transform
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import head_parts, hook_points
from interp_transfer.models.tokens import tokenize, tokenizer_of

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

Metric = Callable[[Float[Tensor, "text vocabulary"], Sequence[int]], Float[Tensor, " text"]]
"""Logits behind each prompt's last token, and which prompts they are -> a number for each; larger is more like clean."""


def logit_difference(model: HookedModel, right: Sequence[str], wrong: Sequence[str]) -> Metric:
    """Logit of the right answer's first token less that of the wrong one's.

    Args:
        model: whose tokenizer counts.
        right: what should follow each prompt, leading space included.
        wrong: what should not.

    Raises:
        ValueError: where both begin with the same token, as the difference then says nothing.
    """
    tok = tokenizer_of(model)
    firsts = [[ids[0] for ids in tok(list(texts), add_special_tokens=False)["input_ids"]] for texts in (right, wrong)]
    if same := [i for i, (r, w) in enumerate(zip(*firsts, strict=True)) if r == w]:
        raise ValueError(f"answers {right[same[0]]!r} and {wrong[same[0]]!r} begin with the same token: choose others")

    def difference(logits: Tensor, prompts: Sequence[int]) -> Tensor:
        row = torch.arange(len(logits), device=logits.device)
        r, w = (torch.tensor([side[i] for i in prompts], device=logits.device) for side in firsts)
        return logits[row, r] - logits[row, w]

    return difference


Place = tuple[str, int | None]
"""A site, and a head where heads are patched apart."""


def in_words(place: Place) -> str:
    """A place as a figure shows it."""
    site, head = place
    return site if head is None else f"{site}, head {head}"


def half_width(effect: Float[Tensor, "text ..."]) -> Float[Tensor, "..."]:
    """Half of the 95% interval of the mean over texts; NaN for a single text."""
    n = len(effect)
    return 1.96 * effect.std(dim=0) / n**0.5 if n > 1 else torch.full_like(effect[0], torch.nan)


@dataclass(frozen=True, repr=False, eq=False)
class Patching:
    """What patching each activation does to the metric.

    Attributes:
        kind: "activation" or "attribution".
        places: site, and head where heads were patched apart.
        positions: of the tokens, counted from the prompt's end: -1 is the last; None stands for all of them at once.
        tokens: the tokens there, of the first prompt.
        effect: metric under the patch less that of the corrupted prompt.
        clean: metric of each clean prompt.
        corrupted: metric of each corrupted prompt.
    """

    kind: str
    places: tuple[Place, ...]
    positions: tuple[int | None, ...]
    tokens: tuple[str, ...]
    effect: Float[Tensor, "text place position"]
    clean: Float[Tensor, " text"]
    corrupted: Float[Tensor, " text"]

    @property
    def recovered(self) -> Float[Tensor, "place position"]:
        """Share of the metric's difference that a patch brings back: mean effect over mean difference; 0 none, 1 all."""
        return self.effect.mean(dim=0) / (self.clean - self.corrupted).mean()

    def to_frame(self) -> "pd.DataFrame":
        """A row for each patch: mean effect with half of its 95% interval over prompts, and the share recovered."""
        import pandas as pd

        rows, mean, half = [], self.effect.mean(dim=0), half_width(self.effect)
        for i, (site, head) in enumerate(self.places):
            for k, (position, token) in enumerate(zip(self.positions, self.tokens, strict=True)):
                row = {"site": site, "head": head, "position": position, "token": token, "n": len(self.clean)}
                found = {"effect": mean[i, k], "half": half[i, k], "recovered": self.recovered[i, k]}
                rows.append({**row, **{name: float(value) for name, value in found.items()}})
        return pd.DataFrame(rows)

    def plot(self) -> "Figure":
        """Places by tokens, in shares recovered."""
        from interp_transfer.plots.heatmap import patching_map

        title = f"{self.kind} patching, {len(self.clean)} prompts"
        return patching_map(self.recovered.tolist(), [in_words(place) for place in self.places], list(self.tokens), title)

    def __repr__(self) -> str:
        best = int(self.recovered.argmax())
        place, k = self.places[best // len(self.positions)], best % len(self.positions)
        most = f"most {float(self.recovered.max()):.2f} at {in_words(place)}, token {self.tokens[k]!r}"
        return (
            f"Patching({self.kind}, {len(self.places)} places x {len(self.positions)} positions, n {len(self.clean)}, {most})"
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Does something to some columns, those of a head."""

    transform: Transform
    part: slice

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """The rows, changed in those columns."""
        out = a.clone()
        out[:, self.part] = self.transform(a, at)[:, self.part]
        return out


@torch.no_grad()
def activation_patching(
    model: HookedModel,
    clean: Sequence[str],
    corrupted: Sequence[str],
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
        clean: prompts that bring the behaviour about.
        corrupted: their twins that do not, token for token as long.
        metric: of the logits behind the last token, such as ``logit_difference``.
        sites: hook-point names; ``*`` stands for every block.
        by_position: one token at a time, counted from the end as far back as the shortest prompt; else all tokens together.
        by_head: one head at a time, at sites of attention heads (``attn.hook_z``).
        donor: rows that stand for the clean ones, such as another model's through a mapper
            (``transfer.map_activations.mapped_activations``); the model's own on the clean prompts if not given. Tokens that have no
            row there keep their own activation.
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for prompts of unequal lengths, sites that cannot be edited, a metric of another shape or NaN, or a donor
            of other sites, widths or texts.
    """
    run = Pairs(model, clean, corrupted, sites, edit=True)
    acts = capture(model, clean, run.sites, progress=False) if donor is None else run.taken(donor)
    base, goal = run.score(metric, run.corrupted), run.score(metric, run.clean)
    places = run.places(by_head)
    positions = tuple(range(-run.shortest, 0)) if by_position else (None,)
    effect = torch.zeros(len(clean), len(places), len(positions))
    with tqdm(
        total=len(places) * len(positions), desc="patches", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False
    ) as bar:
        for i, ((site, _), part) in enumerate(places):
            for k, position in enumerate(positions):
                put = splice(acts, site, site, positions="all" if position is None else position)
                effect[:, i, k] = run.score(metric, run.corrupted, replace(put, transform=Part(put.transform, part))) - base
                bar.update()
    return Patching("activation", tuple(p for p, _ in places), positions, run.tokens(positions), effect, goal, base)


def attribution_patching(
    model: HookedModel,
    clean: Sequence[str],
    corrupted: Sequence[str],
    metric: Metric,
    sites: str | Sequence[str] = "blocks.*.hook_resid_pre",
    *,
    by_position: bool = True,
    by_head: bool = False,
) -> Patching:
    """What ``activation_patching`` would find, to first order: (clean - corrupted activation) times the metric's gradient.

    Two forward passes and one backward pass for all sites, heads and positions together. Arguments and errors as there.
    """
    run = Pairs(model, clean, corrupted, sites, edit=False)
    goal = run.score(metric, run.clean)
    there = capture(model, clean, run.sites, progress=False)
    places = run.places(by_head)
    positions = tuple(range(-run.shortest, 0)) if by_position else (None,)
    effect, base = torch.zeros(len(clean), len(places), len(positions)), torch.zeros(len(clean))
    starts = [0, *torch.bincount(there.text_index).cumsum(0).tolist()]
    for batch in by_length([len(ids) for ids in run.corrupted], TOKENS_PER_BATCH):
        found, scores = run.gradients(metric, batch)
        base[batch] = scores
        for row, text in enumerate(batch):
            length = len(run.corrupted[text])
            for i, ((site, _), part) in enumerate(places):
                here, gradient = (side[row, :length].flatten(1)[:, part] for side in found[site])
                change = (there[site][starts[text] : starts[text + 1], part].to(here) - here) * gradient
                each = change.sum(dim=1).cpu()
                effect[text, i] = each[-run.shortest :] if by_position else each.sum()
    return Patching("attribution", tuple(p for p, _ in places), positions, run.tokens(positions), effect, goal, base)


class Pairs:
    """Pairs of prompts, tokenized and checked."""

    def __init__(
        self, model: HookedModel, clean: Sequence[str], corrupted: Sequence[str], sites: str | Sequence[str], *, edit: bool
    ) -> None:
        self.model = model
        self._points = hook_points(model, sites, edit=edit)
        self.sites = list(self._points)
        if len(clean) != len(corrupted) or not len(clean):
            raise ValueError(
                f"{len(clean)} clean and {len(corrupted)} corrupted prompts: give a twin for each, and at least one"
            )
        self.clean, self.corrupted = tokenize(model, clean), tokenize(model, corrupted)
        for index, (one, other) in enumerate(zip(self.clean, self.corrupted, strict=True)):
            if len(one) != len(other):
                raise ValueError(
                    f"pair {index} has {len(one)} clean and {len(other)} corrupted tokens: patching puts token for token in "
                    "place, so choose prompts of equal length"
                )
        self.shortest = min(map(len, self.clean))

    def taken(self, donor: Activations) -> Activations:
        """Rows that somebody gives for the clean ones.

        Raises:
            ValueError: for a site or a text without rows, rows of another width, or tokens that the prompts do not have.
        """
        own = capture(self.model, [""], self.sites, ids=self.corrupted[:1], progress=False)
        for site in self.sites:
            if site not in donor:
                raise ValueError(f"the donor holds nothing at {site!r} but at {', '.join(donor)}: give rows of that site too")
            if donor[site].shape[1] != own[site].shape[1]:
                raise ValueError(
                    f"the donor's rows at {site!r} have width {donor[site].shape[1]}, the model's {own[site].shape[1]}: map "
                    "them to it, see transfer.map_activations.mapped_activations"
                )
        lengths = torch.tensor([len(ids) for ids in self.clean])
        if missing := sorted(set(range(len(lengths))) - set(donor.text_index.tolist())):
            raise ValueError(f"the donor has no row of text {missing[0]}, of {len(lengths)}: give rows of all clean prompts")
        if (donor.text_index >= len(lengths)).any() or (donor.position >= lengths[donor.text_index]).any():
            raise ValueError(f"the donor has rows beyond the {len(lengths)} clean prompts: give rows of those, in their order")
        return donor

    def places(self, by_head: bool) -> list[tuple[Place, slice]]:
        """Every site, or every head of every site, with its part of the row."""
        if not by_head:
            return [((site, None), slice(None)) for site in self.sites]
        return [((site, head), part) for site in self.sites for head, part in enumerate(head_parts(self.model, site))]

    def tokens(self, positions: Sequence[int | None]) -> tuple[str, ...]:
        """The first corrupted prompt's tokens at some positions."""
        texts = [text for text, _ in token_spans(self.corrupted[0], tokenizer_of(self.model))]
        return tuple("all tokens" if p is None else texts[p] for p in positions)

    @torch.no_grad()
    def score(self, metric: Metric, rows: Sequence[list[int]], *interventions: Intervention) -> Float[Tensor, " text"]:
        """The metric of each prompt."""
        out = torch.zeros(len(rows))
        for batch in by_length([len(row) for row in rows], TOKENS_PER_BATCH):
            with applied(self.model, *interventions, rows=torch.tensor(batch)):
                out[batch] = self._last(metric, [rows[i] for i in batch], batch).cpu()
        return out

    def gradients(self, metric: Metric, batch: list[int]) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """Activations of corrupted prompts and the metric's gradient in them, by site; and the metric."""
        seen: dict[str, Tensor] = {}

        def note(site: str) -> Any:
            def hook(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - transformer-lens passes it by name
                # Handed back, because a wrapper may go on with what it made this tensor from.
                seen[site] = tensor.clone() if tensor.requires_grad else tensor.detach().requires_grad_()
                return seen[site]

            return hook

        with torch.enable_grad(), ExitStack() as stack:
            for site, point in self._points.items():
                stack.enter_context(hooked(point, note(site)))
            scores = self._last(metric, [self.corrupted[i] for i in batch], batch)
            found = torch.autograd.grad(scores.sum(), list(seen.values()))
        pairs = zip(seen.items(), found, strict=True)
        return {site: (tensor.detach(), gradient) for (site, tensor), gradient in pairs}, scores.detach().cpu()

    def _last(self, metric: Metric, rows: Sequence[list[int]], numbers: Sequence[int]) -> Tensor:
        logits, real = logits_of(self.model, rows)
        last = (real.sum(dim=1) - 1).to(logits.device)
        found = metric(logits[torch.arange(len(rows), device=logits.device), last].float(), numbers)
        if found.shape != (len(rows),) or not torch.isfinite(found).all():
            raise ValueError(
                f"the metric returned {tuple(found.shape)} for {len(rows)} prompts, or NaN: give a number for each"
            )
        return found
