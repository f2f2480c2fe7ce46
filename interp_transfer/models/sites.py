"""Sites: names of hook points, checked and expanded.

A site is a transformer-lens hook name such as ``blocks.3.hook_resid_pre``. transformer-lens ignores unknown names, so every
name is checked here before it is used, and an unknown one raises an error with the closest names of the model. In a name, ``*``
in place of a layer number stands for that site in every block. The number of a block stands for its input, ``hook_resid_pre``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from interp_transfer.models.exclusive import locked
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import wrapper_check
from interp_transfer.names import did_you_mean, misplaced

BLOCK = re.compile(r"^blocks\.(\d+|\*)\.")

RESIDUAL_WRITES = ("blocks.*.hook_resid_pre", "blocks.*.hook_attn_out", "blocks.*.hook_mlp_out")
"""Each block's input, attention output and MLP output. Directional ablation at all of them removes a direction from everything
that the residual stream carries or receives (Arditi et al. 2024)."""


OTHER_NAMES = {
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
    "attn.hook_out": "hook_attn_out",
    "mlp.hook_out": "hook_mlp_out",
}
"""Names that bridges have for hook points of a block besides the usual ones."""

HEAD_SITES = ("hook_z", "hook_q", "hook_k", "hook_v")
"""Last parts of the names of sites that have heads."""

SEPARATOR = " + "
"""Between the names of sites whose rows are concatenated, as one space of all their dimensions."""


def join_sites(sites: Iterable[str]) -> str:
    """The name of several concatenated sites.

    Raises:
        ValueError: for no sites, or one that occurs twice.
    """
    names = list(sites)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"sites {names}: name at least one, and each once")
    return SEPARATOR.join(names)


def split_sites(site: str) -> list[str]:
    """The sites of a name that ``join_sites`` made; a plain site alone."""
    return site.split(SEPARATOR)


def layer_of(site: str) -> int | None:
    """The block that a site belongs to, or None for sites outside the blocks (embeddings, final norm)."""
    match = BLOCK.match(site)
    return int(match.group(1)) if match and match.group(1) != "*" else None


def site_name(site: str | int) -> str:
    """Return the name of a site; that of a block's input for the number of a block, such as 12 or "12"."""
    if not isinstance(site, str | int):
        raise misplaced(site, "a site", "give a hook-point name such as 'blocks.3.hook_resid_pre', or the number of a block")
    return f"blocks.{int(site)}.hook_resid_pre" if isinstance(site, int) or site.isdecimal() else site


def check_site(model: HookedModel, site: str | int) -> str:
    """Return the name of a site if the model has it; for a second name of a hook point in ``OTHER_NAMES``, the first.

    Raises:
        ValueError: naming the closest sites of this model.
    """
    known = _known(model)
    name = _check(model, site_name(site), known)
    for other, usual in OTHER_NAMES.items():
        block = BLOCK.match(name)
        if block and name == block[0] + other and known.get(block[0] + usual) is known[name]:
            return block[0] + usual
    return name


def expand_sites(model: HookedModel, sites: str | int | Iterable[str | int]) -> list[str]:
    """The model's own names for ``sites``, patterns with ``*`` replaced by one name for each block, in order.

    Raises:
        ValueError: for an unknown site, or no sites.
    """
    return list(hook_points(model, sites))


def hook_points(model: HookedModel, sites: str | int | Iterable[str | int], edit: bool = False) -> dict[str, Any]:
    """The hook points of ``sites`` by name, patterns expanded, in order; several names may share a hook point.

    Args:
        model: the wrapped model.
        sites: one name or several.
        edit: whether activations are edited there and not only read.

    Raises:
        ValueError: for an unknown site, no sites, or a site that cannot be edited.
    """
    known = _known(model)
    names: list[str] = []
    for site in map(site_name, [sites] if isinstance(sites, str | int) else sites):
        layers = range(int(model.cfg.n_layers)) if "*" in site else (None,)
        names += [_check(model, site if n is None else site.replace("*", str(n), 1), known) for n in layers]
    if not names:
        raise ValueError("no site given: name at least one, such as 'blocks.0.hook_resid_pre'")
    for site in names:
        if edit and site.endswith("hook_resid_mid") and type(model).__name__ == "TransformerBridge":
            raise ValueError(
                f"{site!r} can be read but not edited: in a TransformerBridge an edit there reaches only the MLP branch; "
                f"edit {site.replace('hook_resid_mid', 'hook_attn_out')!r} or the next block's hook_resid_pre instead"
            )
    return {site: known[site] for site in names}


@contextmanager
def hooked(point: Any, hook: Any) -> Iterator[None]:
    """Add a transformer-lens hook at a hook point, and remove it afterwards, also after an exception.

    The hook is added to the hook point itself: a bridge in compatibility mode would call it twice, once for each name.
    """
    point.add_hook(hook)
    handle = point.fwd_hooks[-1]
    try:
        yield
    finally:
        handle.hook.remove()
        if handle in point.fwd_hooks:
            point.fwd_hooks.remove(handle)


def check_block(site: str | int, n_layers: int) -> None:
    """Refuse a site of a block that a model of so many blocks does not have.

    Raises:
        ValueError: naming the blocks that there are.
    """
    layer = layer_of(site_name(site))
    if layer is not None and layer >= n_layers:
        raise ValueError(
            f"site {site_name(site)!r}: this model has {n_layers} blocks, 0 to {n_layers - 1}; choose one of those"
        )


def _known(model: HookedModel) -> dict[str, Any]:
    """All hook points. A bridge collects them from its modules at every access, some of which may be bypassed in a pass."""
    with locked(model):
        return model.hook_dict


def _check(model: HookedModel, site: str, known: dict[str, Any]) -> str:
    if site in known:
        if change := wrapper_check(model).differing.get(site):
            raise ValueError(
                f"{site!r} cannot be used: transformer-lens computes something else there for this architecture, and a hook "
                f"that does nothing changes what the block adds by {change:.0%}; use another site, such as "
                f"{BLOCK.match(site)[0]}hook_resid_pre"  # type: ignore[index]
            )
        return site
    if BLOCK.sub("blocks.0.", site) in known:
        check_block(site, int(model.cfg.n_layers))
    examples = [name for name in known if name.endswith("hook_resid_pre")][:3]
    hint = did_you_mean(site, known, n=3, cutoff=0.5) or f"there are {', '.join(map(repr, examples))}, for example; "
    raise ValueError(f"unknown site {site!r}: {hint}model.hook_dict lists all {len(known)}")


def head_parts(model: HookedModel, site: str) -> list[slice]:
    """The columns of each head in the rows of a site of attention heads (``attn.hook_z``).

    Raises:
        ValueError: for another site.
    """
    name, size = site.rsplit(".", 1)[-1], int(model.cfg.d_head)
    if name not in HEAD_SITES:
        raise ValueError(f"{site!r} is no site of attention heads; take one that ends in attn.hook_z")
    groups = getattr(model.cfg, "n_key_value_heads", None) if name in ("hook_k", "hook_v") else None
    return [slice(k * size, k * size + size) for k in range(int(groups or model.cfg.n_heads))]


def residual_sites(model: HookedModel) -> Sequence[str]:
    """The input of every block: the sites that a search over layers tries."""
    return expand_sites(model, "blocks.*.hook_resid_pre")
