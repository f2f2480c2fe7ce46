"""A whole SAE in another model's space, without training there.

A feature has two parts, and they move in opposite ways. What it adds (its decoder row) is a direction of the source, and moves
there: through the map from source to target. What it reads (its encoder row) asks something of an activation, and an activation
of the target has to be brought back before the source's SAE can be asked: through a map from target to source. Of maps that are
affine the whole is an SAE again, exactly; others are taken by their mean derivative at given rows.

What comes of it: a target SAE with the source's features, number by number; zero-shot, or as the start of a training that takes
fewer steps (``features.train.train_sae(start=)``).
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp_transfer.features.sae import Sae
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.vectors.vector import check_same

if TYPE_CHECKING:
    import pandas as pd

AT_ONCE = 256
TOP = 10
"""Rows that two features are compared by, of those where they fire most."""


def affine_part(
    f: Callable[[Tensor], Tensor], rows: Float[Tensor, "n d_source"]
) -> tuple[Float[Tensor, "d_target d_source"], Float[Tensor, " d_target"]]:
    """A and b of the affine map that is nearest to f at some rows: A its mean derivative, A mean(x) + b its mean value.

    Of an affine map it is the map itself.
    """
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: f(x[None])[0]))
    total = sum(jacobian(part).sum(dim=0) for part in rows.split(AT_ONCE))
    a = torch.as_tensor(total) / len(rows)
    return a, f(rows).mean(dim=0) - a @ rows.mean(dim=0)


@torch.no_grad()
def move_sae(
    sae: Sae,
    there: Mapper,
    back: Mapper,
    source_rows: Float[Tensor, "n d_source"],
    target_rows: Float[Tensor, "m d_target"],
) -> Sae:
    """A source SAE as one of the target, feature by feature.

    A feature's activation keeps the source's units: on a target activation it is what the source's SAE would read off the
    activation that ``back`` makes of it. One unit of it adds ``there`` times the source's decoder row.

    Args:
        sae: of the source; of an architecture that reads each feature by one row (topk, jumprelu, standard).
        there: mapper from its site to the target's.
        back: mapper from that to the source's.
        source_rows: activations of the source at which a map that is not affine is taken by its derivative.
        target_rows: of the target, likewise.

    Raises:
        ValueError: for mappers that do not lead there and back, or an SAE that cannot be moved.
    """
    check_same(sae.model, there.source.model, "this SAE and the mapper's source are")
    if sae.site != there.source.site:
        raise ValueError(f"this SAE is of {sae.site!r}, the mapper leads from {there.source.site!r}: fit one from its site")
    if (there.target, there.source) != (back.source, back.target):
        raise ValueError(
            "the second mapper does not lead back: fit it on pairs.reversed(), or collect with the models exchanged"
        )
    config = sae.module.cfg
    if sae.architecture not in ("topk", "jumprelu", "standard") or config.normalize_activations != "none":
        raise ValueError(
            f"an SAE of architecture {sae.architecture!r} with normalize_activations={config.normalize_activations!r} does not "
            "read a feature by one row: move its features one by one (sae.feature(index, rows), mapper.transfer(..., 'delta'))"
        )
    a, _ = affine_part(there, source_rows)
    back_a, back_b = affine_part(back, target_rows)
    module = copy.deepcopy(sae.module)
    old = {name: tensor.detach().float() for name, tensor in module.state_dict().items()}
    centre = old["b_dec"] if config.apply_b_dec_to_input else torch.zeros_like(old["b_dec"])
    b_dec = there(old["b_dec"][None])[0]
    w_enc = back_a.T @ old["W_enc"]
    b_enc = old["b_enc"] + (back_b - centre) @ old["W_enc"]
    if config.apply_b_dec_to_input:
        b_enc = b_enc + b_dec @ w_enc
    new = old | {"W_enc": w_enc, "b_enc": b_enc, "W_dec": old["W_dec"] @ a.T, "b_dec": b_dec}
    if getattr(config, "rescale_acts_by_decoder_norm", False):
        raise ValueError("fold the decoder's norms into the encoder first: sae.module.fold_W_dec_norm()")
    for name, tensor in new.items():
        setattr(module, name, torch.nn.Parameter(tensor, requires_grad=False))
    module.cfg.d_in = there.target.d
    module.cfg.metadata.hook_name = there.target.site
    module.cfg.metadata.model_name = there.target.model.name
    lengths = target_rows.norm(dim=1)
    details = {"moved": {"from": repr(sae), "there": repr_of(there), "back": repr_of(back)}}
    return Sae(module.eval(), there.target.site, there.target.model, 10 * float(lengths.median()), details)


def repr_of(mapper: Mapper) -> str:
    """A mapper in a few words."""
    control = ", shuffled" if mapper.card.shuffled else ""
    return f"{mapper.kind}{control}, fvu {mapper.card.fvu:.3f}, {mapper.source.model.name} to {mapper.target.model.name}"


@torch.no_grad()
def match_features(moved: Sae, own: Sae, rows: Float[Tensor, "n d_model"]) -> "pd.DataFrame":
    """For each feature of an SAE that was moved here, the one of the target's own SAE that it resembles most.

    Args:
        moved: an SAE that was moved to the target.
        own: the target's own.
        rows: activations of the target.

    Returns:
        A row for each moved feature: ``match``, the own feature whose decoder row has the largest cosine with it; that
        ``cosine``; ``mutual``, whether the match's own best is this one; ``correlation`` of both activations over the rows; and
        ``overlap``, the share of the rows where the one fires most (ten, if it fires on as many) that are among the other's.
        Features that fire on no row have no correlation and no overlap.

    Raises:
        ValueError: for SAEs of two models or sites.
    """
    import pandas as pd

    check_same(moved.model, own.model, "these SAEs are")
    if moved.site != own.site:
        raise ValueError(f"the SAEs are of {moved.site!r} and {own.site!r}: compare two of one site")
    cosines = _unit(moved.decoder) @ _unit(own.decoder).T
    best, match = cosines.max(dim=1)
    mutual = cosines.argmax(dim=0)[match] == torch.arange(len(match))
    a, b = moved.encode(rows), own.encode(rows)[:, match]
    fires = (a > 0).any(dim=0) & (b > 0).any(dim=0)
    x, y = a - a.mean(dim=0), b - b.mean(dim=0)
    correlation = (x * y).sum(dim=0) / (x.norm(dim=0) * y.norm(dim=0)).clamp(min=1e-12)
    overlap = [_overlap(a[:, k], b[:, k]) if f else float("nan") for k, f in enumerate(fires.tolist())]
    columns = {"match": match.tolist(), "cosine": best.tolist(), "mutual": mutual.tolist()}
    columns["correlation"] = torch.where(fires, correlation, torch.nan).tolist()
    return pd.DataFrame({**columns, "overlap": overlap}).rename_axis("feature")


def _unit(rows: Tensor) -> Tensor:
    return rows.float() / rows.float().norm(dim=1, keepdim=True).clamp(min=1e-12)


def _overlap(one: Tensor, other: Tensor) -> float:
    sets = [set(values.topk(min(TOP, int((values > 0).sum()))).indices.tolist()) for values in (one, other)]
    return len(sets[0] & sets[1]) / max(1, min(map(len, sets)))
