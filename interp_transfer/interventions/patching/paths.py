"""Path patching: which component affects which, and which the logits.

Patching a component changes everything after it. Here its change takes one path alone: it is added to the input of one other
component, as if it had reached it directly through the residual stream, and no component in between sees it; everything after
the receiver reacts as usual (Wang et al. 2022, "Interpretability in the Wild"; Goldowsky-Dill et al. 2023, "Path Patching").
The change of a sender is what its block writes into the residual stream when this sender alone is as on the clean prompt,
minus what it writes on the corrupted one.

A receiver reads through a norm of its own, and the change is added before that norm, on this branch alone. So the effects of
several senders do not add up to the effect of all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp_transfer.activations.capture import (
    TOKENS_PER_BATCH,
    by_length,
    capture,
    logits_of,
    reading,
)
from interp_transfer.interventions.hooks import applied
from interp_transfer.interventions.intervention import Intervention
from interp_transfer.interventions.patching.activation import Columns
from interp_transfer.interventions.patching.effects import Effects, Place, place_name
from interp_transfer.interventions.patching.prompt_pairs import Metric, PromptPairs
from interp_transfer.interventions.splice import splice
from interp_transfer.interventions.transforms import At
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import HEAD_SITES, head_parts, hook_points
from interp_transfer.names import did_you_mean
from interp_transfer.progress import progress_bar
from interp_transfer.prompts.chats import PromptLike

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

LOGITS = "logits"
"""The receiver after all blocks: the final norm, and so the logits."""

_NORMS = {"attn": "ln1", "mlp": "ln2"}
"""A bridge's names of the norms through which attention and MLP read; Gemma2's ``ln2`` is the one before its MLP."""

_SENDER = re.compile(r"^blocks\.(\d+)\.(?:hook_)?(attn|mlp)(?:_out$|\..+)")

Depth = tuple[int, int]
"""Block, and 0 or 1 within it, attention before MLP. A path leads from a smaller depth to a larger one."""

Sender = tuple[Place, slice, Depth]
"""Site and head, its columns, its depth."""

Receivers = dict[str, tuple[str, Depth]]
"""By name, the site at which the receiver alone reads, and its depth."""


@dataclass(frozen=True, repr=False, eq=False)
class Paths(Effects):
    """The effect of each sender through each receiver: a row for each sender, a column for each receiver.

    The effect is NaN where no path leads from one to the other.

    Attributes:
        senders: site, and head where heads are patched separately; from the input to the output.
        receivers: ``blocks.N.attn``, ``blocks.N.mlp``, or ``logits``.
    """

    senders: tuple[Place, ...]
    receivers: tuple[str, ...]

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each path, see `Effects`."""
        return super().to_frame().astype({"head": "Int64"})

    def plot(self) -> "Figure":
        """Return a heat map of senders by receivers, in shares recovered; empty where there is no path."""
        from interp_transfer.plots.heatmap import patching_map

        title = f"path patching, {len(self.clean)} prompts"
        reach = float(self.recovered.nan_to_num().abs().max()) or 1.0
        names = list(map(place_name, self.senders))
        figure = patching_map(self.recovered.tolist(), names, list(self.receivers), title, columns="to", reach=reach)
        return figure.update_xaxes(title="receivers")

    def _labels(self, row: int, column: int) -> dict[str, Any]:
        sender, head = self.senders[row]
        return {"sender": sender, "head": head, "receiver": self.receivers[column]}

    def __repr__(self) -> str:
        i, k = self._largest()
        most = f"most {float(self.recovered[i, k]):.2f} from {place_name(self.senders[i])} to {self.receivers[k]}"
        return f"Paths({len(self.senders)} senders x {len(self.receivers)} receivers, n {len(self.clean)}, {most})"


@torch.no_grad()
def path_patching(
    model: HookedModel,
    clean: Sequence[PromptLike],
    corrupted: Sequence[PromptLike],
    metric: Metric,
    senders: str | Sequence[str] = ("blocks.*.hook_attn_out", "blocks.*.hook_mlp_out"),
    receivers: str | Sequence[str] | None = None,
    *,
    by_head: bool = False,
    progress: bool = True,
) -> Paths:
    """Run corrupted prompts with one direct path from one component to another as on the clean ones, all tokens together.

    Args:
        model: a ``TransformerBridge``; a ``HookedTransformer`` for ``receivers="logits"`` alone.
        clean: prompts that show the behaviour.
        corrupted: prompts of the same lengths in tokens that do not.
        metric: of the logits after the last token, such as ``logit_difference``.
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
    pairs = PromptPairs(model, clean, corrupted, senders, edit=True)
    parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))
    sending = sorted(_senders(pairs, by_head, parallel), key=lambda sender: sender[2])
    ends = _receivers(model, receivers, parallel)
    reached = {name for name, (_, depth) in ends.items() if any(own < depth for _, _, own in sending)}
    if not reached:
        raise ValueError(f"no path leads from {', '.join(pairs.sites)} to {', '.join(ends)}: give receivers after the senders")
    if receivers is None:
        ends = {name: end for name, end in ends.items() if name in reached}
    _check_reads(pairs, ends, parallel)
    clean_rows = capture(model, clean, pairs.sites, progress=False)
    corrupted_writes = capture(model, corrupted, sorted({_write_site(site) for site in pairs.sites}), progress=False)
    starts = torch.tensor([0, *map(len, pairs.corrupted)]).cumsum(0)[:-1]
    base, goal = pairs.score(metric, pairs.corrupted), pairs.score(metric, pairs.clean)
    effect = torch.full((len(clean), len(sending), len(ends)), torch.nan)
    paths = [[k for k, (_, end) in enumerate(ends.values()) if depth < end] for _, _, depth in sending]
    sites = [site for site, _ in ends.values()]
    with progress_bar("paths", progress, total=sum(map(len, paths))) as bar:
        for i, ((site, _), columns, _) in enumerate(sending):
            patch = Intervention(site, Columns(splice(clean_rows, site, site, positions="all").transform, columns))
            write = _write_site(site)
            change = AddRows(starts, _written(pairs, write, patch) - corrupted_writes[write])
            for k in paths[i]:
                effect[:, i, k] = pairs.score(metric, pairs.corrupted, Intervention(sites[k], change)) - base
                bar.update()
    return Paths(tuple(place for place, _, _ in sending), tuple(ends), effect=effect, clean=goal, corrupted=base)


@dataclass(frozen=True, eq=False)
class AddRows:
    """Add a row of its own to each token.

    Attributes:
        starts: index of the first row of each text.
        rows: one row for each token of each text.
    """

    starts: Int[Tensor, " text"]
    rows: Float[Tensor, "row d_model"]

    def __call__(self, a: Float[Tensor, "n d_model"], at: At) -> Float[Tensor, "n d_model"]:
        """Return the rows, with those of their tokens added."""
        return a + self.rows[self.starts[at.row.cpu()] + at.position.cpu()].to(a)


def _senders(pairs: PromptPairs, by_head: bool, parallel: bool) -> list[Sender]:
    senders: list[Sender] = []
    with_heads = [site for site in pairs.sites if site.endswith(HEAD_SITES)] or pairs.sites
    for site in pairs.sites:
        match = _SENDER.match(site)
        if match is None:
            raise ValueError(
                f"{site!r} is no part of a block's attention or MLP, so no path begins there: take hook_attn_out, hook_mlp_out "
                "or what is inside, such as attn.hook_z"
            )
        depth = _depth(int(match[1]), match[2], parallel)
        heads = list(enumerate(head_parts(pairs.model, site))) if by_head and site in with_heads else [(None, slice(None))]
        senders += [((site, head), columns, depth) for head, columns in heads]
    hook_points(pairs.model, [_write_site(site) for site in pairs.sites])
    return senders


def _depth(block: int, part: str, parallel: bool) -> Depth:
    return block, 0 if parallel or part == "attn" else 1


def _write_site(site: str) -> str:
    """The site at which a sender's block writes the output of its attention or MLP."""
    match = _SENDER.match(site)
    assert match is not None
    return f"blocks.{match[1]}.hook_{match[2]}_out"


def _receivers(model: HookedModel, names: str | Sequence[str] | None, parallel: bool) -> Receivers:
    """The receivers with these names, or all of them, from the input to the output."""
    layers, points = int(model.cfg.n_layers), model.hook_dict
    known = {
        f"blocks.{n}.{part}": (f"blocks.{n}.{norm}.hook_in", _depth(n, part, parallel))
        for n in range(layers)
        for part, norm in _NORMS.items()
    }
    # The last block's output is read by the final norm alone.
    known[LOGITS] = (f"blocks.{layers - 1}.hook_resid_post", (layers, 0))
    patterns = list(known) if names is None else [names] if isinstance(names, str) else list(names)
    chosen = [name.replace("*", str(n), 1) for name in patterns for n in (range(layers) if "*" in name else (0,))]
    for name in chosen:
        if name not in known:
            raise ValueError(
                f"unknown receiver {name!r}: {did_you_mean(name, known)}there are blocks.N.attn and blocks.N.mlp, N from 0 to "
                f"{layers - 1}, and {LOGITS}"
            )
        # Where one of the two norms is missing, attention and MLP share the other one.
        needed = [name.rsplit(".", 1)[0] + f".{norm}.hook_in" for norm in _NORMS.values()] if name != LOGITS else []
        if any(site not in points for site in needed):
            raise ValueError(
                f"this {type(model).__name__} has no hook where {name} alone reads ({' and '.join(needed)}): load the model "
                f"with wrapper='bridge', or take receivers={LOGITS!r}"
            )
    if not chosen:
        raise ValueError(f"no receiver given: name at least one, such as {LOGITS!r}")
    return {name: end for name, end in known.items() if name in chosen}


def _check_reads(pairs: PromptPairs, ends: Receivers, parallel: bool) -> None:
    """Check, on one prompt, that the receivers read the residual stream at their sites.

    Raises:
        ValueError: for models with norms elsewhere, or whose attention does not read through its norm.
    """
    inside = {name: site for name, (site, _) in ends.items() if name != LOGITS}
    if not inside:
        return
    for switch in ("use_split_qkv_input", "use_attn_in"):
        if getattr(pairs.model.cfg, switch, False):
            raise ValueError(f"under {switch} attention does not read through its norm: call model.set_{switch}(False) first")
    terms: dict[str, list[str]] = {}
    for name in inside:
        block, part = name.rsplit(".", 1)
        terms[name] = [f"{block}.hook_resid_pre"] + ([f"{block}.hook_attn_out"] if part == "mlp" and not parallel else [])
    sites = list(dict.fromkeys([*inside.values(), *(site for names in terms.values() for site in names)]))
    acts = capture(pairs.model, [""], sites, ids=pairs.corrupted[:1], progress=False)
    for name, site in inside.items():
        expected = torch.stack([acts[term] for term in terms[name]]).sum(dim=0).float()
        error = (acts[site].float() - expected).norm() / expected.norm()
        if not error < 1e-2:  # noqa: PLR2004 - sums in bfloat16 are that exact
            raise ValueError(
                f"{site!r} is not the residual stream that {name} reads (this architecture has its norms elsewhere), "
                f"so no path can end there: take receivers={LOGITS!r}"
            )


def _written(pairs: PromptPairs, site: str, patch: Intervention) -> Float[Tensor, "row d_model"]:
    """The rows of corrupted prompts at a site under an intervention, one for each token."""
    rows: list[Tensor] = [torch.empty(0)] * len(pairs.corrupted)
    points = hook_points(pairs.model, site)
    for batch in by_length([len(ids) for ids in pairs.corrupted], TOKENS_PER_BATCH):
        read: dict[str, Tensor] = {}
        with applied(pairs.model, patch, rows=torch.tensor(batch)), reading(points, read, stop=True):
            logits_of(pairs.model, [pairs.corrupted[i] for i in batch])
        for row, text in enumerate(batch):
            rows[text] = read[site][row, : len(pairs.corrupted[text])].cpu()
    return torch.cat(rows)
