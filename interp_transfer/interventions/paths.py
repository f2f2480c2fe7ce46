"""Path patching: which component speaks to which, and which to the logits.

Patching a component changes everything behind it. Here its change goes one way alone: it is added to what one other component
reads, as if it had come through the residual stream directly, and nothing in between hears of it; what lies behind the receiver
reacts as usual (Wang et al. 2022, "Interpretability in the Wild"; Goldowsky-Dill et al. 2023, "Path Patching"). The
change of a sender is what its block writes into the residual stream when that sender alone is as on the clean prompt, less
what it writes on the corrupted one.

A receiver reads through a norm of its own, and the change is added in front of that norm, on this branch alone. So changes of
several senders do not add up to the change of all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from interp_transfer.activations.capture import (
    SECONDS_BEFORE_PROGRESS,
    TOKENS_PER_BATCH,
    by_length,
    capture,
    logits_of,
    reading,
)
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.patching import Metric, Pairs, Part, Place, half_width, in_words
from interp_transfer.interventions.splice import splice
from interp_transfer.interventions.transforms import At
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import HEAD_SITES, head_parts, hook_points
from interp_transfer.names import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

LOGITS = "logits"
"""The receiver behind all blocks: the final norm, and so the logits themselves."""

_NORMS = {"attn": "ln1", "mlp": "ln2"}
"""A bridge's names for the norms that each part of a block reads through; Gemma2's ``ln2`` is the one before its MLP."""

_SENDER = re.compile(r"^blocks\.(\d+)\.(?:hook_)?(attn|mlp)(?:_out$|\..+)")

Depth = tuple[int, int]
"""Block, and 0 or 1 within it, attention before MLP: what is further forward can hear what is further back."""


@dataclass(frozen=True, repr=False, eq=False)
class Paths:
    """What each sender does to the metric through each receiver.

    Attributes:
        senders: site, and head where heads send apart; from the input to the output.
        receivers: ``blocks.N.attn``, ``blocks.N.mlp``, or ``logits``.
        effect: metric with the path patched less that of the corrupted prompt; NaN where no path leads from one to the other.
        clean: metric of each clean prompt.
        corrupted: metric of each corrupted prompt.
    """

    senders: tuple[Place, ...]
    receivers: tuple[str, ...]
    effect: Float[Tensor, "text sender receiver"]
    clean: Float[Tensor, " text"]
    corrupted: Float[Tensor, " text"]

    @property
    def recovered(self) -> Float[Tensor, "sender receiver"]:
        """Share of the metric's difference that a path brings back: mean effect over mean difference; NaN without a path."""
        return self.effect.mean(dim=0) / (self.clean - self.corrupted).mean()

    def to_frame(self) -> "pd.DataFrame":
        """A row for each path: mean effect with half of its 95% interval over prompts, and the share recovered."""
        import pandas as pd

        rows, columns = [], (self.effect.mean(dim=0), half_width(self.effect), self.recovered)
        for i, k in self.effect[0].isnan().logical_not().nonzero().tolist():
            (sender, head), receiver = self.senders[i], self.receivers[k]
            row = {"sender": sender, "head": head, "receiver": receiver, "n": len(self.clean)}
            found = zip(("effect", "half", "recovered"), columns, strict=True)
            rows.append({**row, **{name: float(column[i, k]) for name, column in found}})
        return pd.DataFrame(rows).astype({"head": "Int64"})

    def plot(self) -> "Figure":
        """Senders by receivers, in shares recovered; empty where no path leads."""
        from interp_transfer.plots.heatmap import patching_map

        found = self.recovered
        title = f"path patching, {len(self.clean)} prompts"
        reach = float(found.nan_to_num().abs().max()) or 1.0
        names = [in_words(place) for place in self.senders]
        figure = patching_map(found.tolist(), names, list(self.receivers), title, columns="to", reach=reach)
        return figure.update_xaxes(title="receivers")

    def __repr__(self) -> str:
        best = int(self.recovered.nan_to_num(nan=-torch.inf).argmax())
        i, k = divmod(best, len(self.receivers))
        most = f"most {float(self.recovered[i, k]):.2f} from {in_words(self.senders[i])} to {self.receivers[k]}"
        return f"Paths({len(self.senders)} senders x {len(self.receivers)} receivers, n {len(self.clean)}, {most})"


@torch.no_grad()
def path_patching(
    model: HookedModel,
    clean: Sequence[str],
    corrupted: Sequence[str],
    metric: Metric,
    senders: str | Sequence[str] = ("blocks.*.hook_attn_out", "blocks.*.hook_mlp_out"),
    receivers: str | Sequence[str] | None = None,
    *,
    by_head: bool = False,
    progress: bool = True,
) -> Paths:
    """Run corrupted prompts with one direct path from one component to another as on the clean ones, all tokens at once.

    Args:
        model: a ``TransformerBridge``; a ``HookedTransformer`` for ``receivers="logits"`` alone.
        clean: prompts that bring the behaviour about.
        corrupted: their twins that do not, token for token as long.
        metric: of the logits behind the last token, such as ``logit_difference``.
        senders: hook-point names of attention and MLP, or inside them, such as ``blocks.*.attn.hook_z``; ``*`` stands for
            every block.
        receivers: ``blocks.N.attn``, ``blocks.N.mlp`` (``*`` for every block) or ``logits``; by default all that a sender can
            reach.
        by_head: one head at a time, at those senders that are sites of attention heads (``attn.hook_z``).
        progress: show a bar when it takes longer than two seconds.

    Raises:
        ValueError: for prompts of unequal lengths, senders that are no part of attention or MLP, unknown receivers, senders
            that reach none of the receivers, models whose components do not read the residual stream through norms of their
            own, or a metric of another shape or NaN.
    """
    run = Pairs(model, clean, corrupted, senders, edit=True)
    parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))
    sending = sorted(_senders(run, by_head, parallel), key=lambda one: one[2])
    ends = _receivers(model, receivers, parallel)
    reached = {name for name, (_, depth) in ends.items() if any(own < depth for _, _, own in sending)}
    if not reached:
        raise ValueError(f"no path leads from {', '.join(run.sites)} to {', '.join(ends)}: give receivers behind the senders")
    if receivers is None:
        ends = {name: end for name, end in ends.items() if name in reached}
    _check_reads(run, ends, parallel)
    acts = capture(model, clean, run.sites, progress=False)
    writes = capture(model, corrupted, list({_write(site): None for site in run.sites}), progress=False)
    starts = torch.tensor([0, *map(len, run.corrupted)]).cumsum(0)[:-1]
    base, goal = run.score(metric, run.corrupted), run.score(metric, run.clean)
    effect = torch.full((len(clean), len(sending), len(ends)), torch.nan)
    paths = [[k for k, (_, end) in enumerate(ends.values()) if depth < end] for _, _, depth in sending]
    sites = [site for site, _ in ends.values()]
    with tqdm(
        total=sum(map(len, paths)), desc="paths", delay=SECONDS_BEFORE_PROGRESS, disable=not progress, leave=False
    ) as bar:
        for i, ((site, _), part, _) in enumerate(sending):
            put = splice(acts, site, site, positions="all")
            alone = Intervention(site, Part(put.transform, part))
            sent = _Sent(starts, _written(run, _write(site), alone) - writes[_write(site)])
            for k in paths[i]:
                effect[:, i, k] = run.score(metric, run.corrupted, Intervention(sites[k], sent)) - base
                bar.update()
    return Paths(tuple(place for place, _, _ in sending), tuple(ends), effect, goal, base)


@dataclass(frozen=True, eq=False)
class _Sent:
    """Adds a row of its own to each token.

    Attributes:
        starts: the first row of each text.
        rows: one for each token of each text.
    """

    starts: Int[Tensor, " text"]
    rows: Float[Tensor, "row d_model"]

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        return a + self.rows[self.starts[at.row.cpu()] + at.position.cpu()].to(a)


def _senders(run: Pairs, by_head: bool, parallel: bool) -> list[tuple[Place, slice, Depth]]:
    """Every sender, with its part of the row and where it is."""
    found: list[tuple[Place, slice, Depth]] = []
    split = [site for site in run.sites if site.endswith(HEAD_SITES)] or run.sites
    for site in run.sites:
        match = _SENDER.match(site)
        if match is None:
            raise ValueError(
                f"{site!r} is no part of a block's attention or MLP, so no path begins there: take hook_attn_out, hook_mlp_out "
                "or what is inside, such as attn.hook_z"
            )
        depth = _depth(int(match[1]), match[2], parallel)
        parts = list(enumerate(head_parts(run.model, site))) if by_head and site in split else [(None, slice(None))]
        found += [((site, head), part, depth) for head, part in parts]
    hook_points(run.model, [_write(site) for site in run.sites])
    return found


def _depth(block: int, part: str, parallel: bool) -> Depth:
    return block, 0 if parallel or part == "attn" else 1


def _write(site: str) -> str:
    """Where the block of a sender writes what that sender has a part in."""
    match = _SENDER.match(site)
    assert match is not None
    return f"blocks.{match[1]}.hook_{match[2]}_out"


def _receivers(model: HookedModel, names: str | Sequence[str] | None, parallel: bool) -> dict[str, tuple[str, Depth]]:
    """By name, where each receiver reads alone, and where it is."""
    layers, points = int(model.cfg.n_layers), model.hook_dict
    known = {
        f"blocks.{n}.{part}": (f"blocks.{n}.{norm}.hook_in", _depth(n, part, parallel))
        for n in range(layers)
        for part, norm in _NORMS.items()
    }
    # The last block's output is read by the final norm and by nobody else.
    known[LOGITS] = (f"blocks.{layers - 1}.hook_resid_post", (layers, 0))
    asked = list(known) if names is None else [names] if isinstance(names, str) else list(names)
    asked = [name.replace("*", str(n), 1) for name in asked for n in (range(layers) if "*" in name else (0,))]
    for name in asked:
        if name not in known:
            raise ValueError(
                f"unknown receiver {name!r}: {did_you_mean(name, known)}there are blocks.N.attn and blocks.N.mlp, N from 0 to "
                f"{layers - 1}, and {LOGITS}"
            )
        # Where one of the two is missing, attention and MLP read through one norm, and neither can be told apart.
        lacks = [name.rsplit(".", 1)[0] + f".{norm}.hook_in" for norm in _NORMS.values()] if name != LOGITS else []
        if any(site not in points for site in lacks):
            raise ValueError(
                f"this {type(model).__name__} has no hook where {name} reads alone ({' and '.join(lacks)}): load the model "
                f"with wrapper='bridge', or take receivers={LOGITS!r}"
            )
    if not asked:
        raise ValueError(f"no receiver given: name at least one, such as {LOGITS!r}")
    return {name: known[name] for name in known if name in asked}


def _check_reads(run: Pairs, ends: dict[str, tuple[str, Depth]], parallel: bool) -> None:
    """Make sure, on one prompt, that receivers read the residual stream where a path is to end.

    Raises:
        ValueError: for models whose norms stand elsewhere, or whose attention reads past its norm.
    """
    inside = {name: site for name, (site, _) in ends.items() if name != LOGITS}
    for switch in ("use_split_qkv_input", "use_attn_in"):
        if inside and getattr(run.model.cfg, switch, False):
            raise ValueError(f"under {switch} attention reads past its norm: call model.set_{switch}(False) first")
    stream = {name: [name.rsplit(".", 1)[0] + ".hook_resid_pre"] for name in inside}
    for name, parts in stream.items():
        if name.endswith(".mlp") and not parallel:
            parts.append(name.removesuffix("mlp") + "hook_attn_out")
    if not inside:
        return
    sites = list(dict.fromkeys([*inside.values(), *(site for parts in stream.values() for site in parts)]))
    read = capture(run.model, [""], sites, ids=run.corrupted[:1], progress=False)
    for name, parts in stream.items():
        expected = torch.stack([read[site] for site in parts]).sum(dim=0).float()
        apart = (read[inside[name]].float() - expected).norm() / expected.norm()
        if not apart < 1e-2:  # noqa: PLR2004 - sums in bfloat16 are that exact
            raise ValueError(
                f"{inside[name]!r} is not the residual stream that {name} reads (this architecture has its norms elsewhere), "
                f"so no path can end there: take receivers={LOGITS!r}"
            )


def _written(run: Pairs, site: str, put: Intervention) -> Float[Tensor, "row d_model"]:
    """What corrupted prompts write at a site under an intervention, a row for each token."""
    rows: list[Tensor] = [torch.empty(0)] * len(run.corrupted)
    points = hook_points(run.model, site)
    for batch in by_length([len(ids) for ids in run.corrupted], TOKENS_PER_BATCH):
        read: dict[str, Tensor] = {}
        with applied(run.model, put, rows=torch.tensor(batch)), reading(points, read, stop=True):
            logits_of(run.model, [run.corrupted[i] for i in batch])
        for row, text in enumerate(batch):
            rows[text] = read[site][row, : len(run.corrupted[text])].cpu()
    return torch.cat(rows)
