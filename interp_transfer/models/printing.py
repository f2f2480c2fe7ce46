"""How a loaded model prints itself; transformer-lens' own text has a line for each of hundreds of hook points."""

from functools import cache
from typing import Any

from interp_transfer.escape import visible
from interp_transfer.models.chat_templates import has_chat_template
from interp_transfer.models.hooked_model import HookedModel, context_length, device_of, huggingface_model, parameter_count
from interp_transfer.models.identity import identity
from interp_transfer.models.tokens import tokenizer_of
from interp_transfer.plots.cards import blocks, card


def describe_model(model: HookedModel) -> str:
    """Return name, fingerprint, shape, dtype, device, template and sites of a model, in four lines."""
    hf, cfg = huggingface_model(model), model.cfg
    module: Any = hf or model
    of = "" if hf is None else f" of {type(hf).__name__}"
    dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
    return visible(
        f"{identity(model)}: {type(model).__name__}{of}\n"
        f"  {cfg.n_layers} blocks, d_model {cfg.d_model}, {cfg.n_heads} heads, vocabulary {cfg.d_vocab}, context "
        f"{context_length(model)}\n"
        f"  {parameter_count(model):,} parameters in {dtype} on {device_of(model)}, "
        f"{'a' if has_chat_template(tokenizer_of(model)) else 'no'} chat template\n"
        f"  sites from blocks.0.hook_resid_pre to blocks.{cfg.n_layers - 1}.hook_resid_post; model.hook_dict has all"
    )


def draw_model(model: HookedModel) -> str:
    """Return the description and the blocks as HTML, for notebooks."""
    return card(describe_model(model), blocks(model.cfg.n_layers))


def print_short(model: Any) -> Any:
    """Have a model print itself by ``describe_model``; it stays an instance of its class. Return it."""
    model.__class__ = _short(type(model))
    return model


@cache
def _short(kind: type) -> type:
    """A subclass that prints and draws itself otherwise, under the same name."""
    own = {"__module__": kind.__module__, "__repr__": describe_model, "_repr_html_": draw_model}
    return type(kind.__name__, (kind,), own)
