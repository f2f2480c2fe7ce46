"""Move a whole SAE into another model's space, without training it there.

The two sides of a feature move in opposite ways. Its decoder row is a direction that it adds to the activation; it moves
through the map from source to target. Its encoder row reads an activation; an activation of the target is first mapped back to
the source, so the encoder is composed with the map from target to source. With affine maps the composition is an SAE again,
exactly. Other maps are replaced by their mean derivative at the rows that are passed.

The result is an SAE of the target with the source's features, in the same order. It can be used as it is, or as the start of a
shorter training (``features.train.train_sae(start=)``).
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from interp_transfer.features.sae import Sae
from interp_transfer.mapping.mappers import Mapper
from interp_transfer.mapping.move import ordinary_rows
from interp_transfer.vectors.vector import check_same

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_JACOBIAN = 256
"""Rows whose derivatives are in memory at a time."""

TOP = 10
"""Number of top-activating rows by which two features are compared."""


def affine_part(
    f: Callable[[Tensor], Tensor], rows: Float[Tensor, "n d_source"]
) -> tuple[Float[Tensor, "d_target d_source"], Float[Tensor, " d_target"]]:
    """Return A and b of an affine approximation of f at some rows: A is the mean derivative, A mean(x) + b the mean of f(x).

    It is exact for an affine map. Rows that a mapper sets apart as massive have no derivative and are left out.

    Raises:
        ValueError: if no row is left.
    """
    rows = ordinary_rows(f, rows)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: f(x[None])[0]))
    total = sum(jacobian(part).sum(dim=0) for part in rows.split(ROWS_PER_JACOBIAN))
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
    """Return an SAE of the target with the features of a source SAE.

    A feature's activation keeps the source's units: on an activation of the target, it is that of the source's SAE on the image
    under ``back``. One unit of it adds the source's decoder row, mapped by ``there``.

    Args:
        sae: SAE of the source, of an architecture with one encoder row for each feature (topk, jumprelu, standard).
        there: mapper from its site to the target's.
        back: mapper from the target's site to its own.
        source_rows: activations of the source, at which the derivative of ``there`` is taken if it is not affine.
        target_rows: the same of the target, for ``back``.

    Raises:
        ValueError: for mappers of other models or sites, or an SAE that cannot be moved.
    """
    check_same(sae.model, there.source.model, "this SAE and the mapper's source are")
    if sae.site != there.source.site:
        raise ValueError(f"this SAE is of {sae.site!r} and the mapper's source is {there.source.site!r}: fit one from its site")
    if (there.target, there.source) != (back.source, back.target):
        raise ValueError(
            "the second mapper is not the reverse of the first: fit it on pairs.reversed(), or collect with the two models "
            "exchanged"
        )
    config = sae.module.cfg
    if sae.architecture not in ("topk", "jumprelu", "standard") or config.normalize_activations != "none":
        raise ValueError(
            f"an SAE of architecture {sae.architecture!r} with normalize_activations={config.normalize_activations!r} has no "
            "encoder row for each feature: move its features one by one, mapper.transfer(sae.feature(index, rows), 'delta')"
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
    """Return a short description of a mapper."""
    control = ", shuffled" if mapper.card.shuffled else ""
    return f"{mapper.kind}{control}, fvu {mapper.card.fvu:.3f}, {mapper.source.model.name} to {mapper.target.model.name}"


@torch.no_grad()
def match_features(moved: Sae, own: Sae, rows: Float[Tensor, "n d_model"]) -> "pd.DataFrame":
    """Match each feature of a moved SAE with the most similar feature of the target's own SAE.

    Args:
        moved: an SAE that was moved to the target.
        own: an SAE that was trained on the target.
        rows: activations of the target.

    Returns:
        A row for each moved feature: ``match``, the index of the own feature whose decoder row has the largest ``cosine`` with
        it; ``mutual``, whether the moved feature is also the best match of that own feature; ``correlation`` of both feature
        activations over the rows; and ``overlap``, the share of top-activating rows (up to ten) that both have in common.
        Correlation and overlap are NaN if either feature fires on no row.

    Raises:
        ValueError: for SAEs of different models or sites.
    """
    import pandas as pd

    check_same(moved.model, own.model, "these SAEs are")
    if moved.site != own.site:
        raise ValueError(f"the SAEs are of {moved.site!r} and {own.site!r}: compare two of one site")
    cosines = normalize(moved.decoder.float()) @ normalize(own.decoder.float()).T
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


def _overlap(one: Tensor, other: Tensor) -> float:
    sets = [set(values.topk(min(TOP, int((values > 0).sum()))).indices.tolist()) for values in (one, other)]
    return len(sets[0] & sets[1]) / max(1, min(map(len, sets)))
