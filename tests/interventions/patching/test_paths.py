"""Path patching against PyTorch's own hooks on plain transformers models, which give one component alone another input."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import interp_transfer as it
from interp_transfer.interventions.patching import Metric, activation_patching
from interp_transfer.interventions.patching import paths as module
from interp_transfer.interventions.patching.paths import path_patching
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.sites import head_parts
from tests.checkpoints import LAYERS, blocks, first, hooked_transformer, part, raw_model

EVERY = [f"blocks.{n}.{what}" for n in range(LAYERS) for what in ("attn", "mlp")]
HEADS = "blocks.*.attn.hook_z"
READERS = {
    "qwen2": ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp"),
    "llama": ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp"),
    "gemma2": ("input_layernorm", "self_attn", "pre_feedforward_layernorm", "mlp"),
    "gpt2": ("ln_1", "attn", "ln_2", "mlp"),
    "gpt_neox": ("input_layernorm", "attention", "post_attention_layernorm", "mlp"),
}
"""Norm and component, of attention and of MLP."""


@pytest.fixture(params=["qwen2", "llama", "gemma2", "gpt2", "gpt_neox"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pairs(wrapped: Callable[[str], Any], family: str) -> tuple[HookedModel, list[str], list[str], Metric]:
    """Random models, prompts of unequal lengths and as long as their twins, and some logit as the metric."""
    clean, corrupted = ["abc def", "xyz"], ["abd dgh", "wyq"]
    return wrapped(family), clean, corrupted, lambda logits, _: logits[:, 65] - logits[:, 66]


def reader(raw: Any, family: str, receiver: str) -> tuple[Any, Any]:
    """The norm of a receiver and what reads its output."""
    if receiver == "logits":
        base = raw.base_model
        norm = next(getattr(base, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(base, name))
        return norm, raw.get_output_embeddings()
    _, block, what = receiver.split(".")
    names = READERS[family][:2] if what == "attn" else READERS[family][2:]
    norm, component = (getattr(blocks(raw)[int(block)], name) for name in names)
    return norm, component


def writer(raw: Any, family: str, sender: str) -> Any:
    """What a sender writes into the residual stream comes out of this."""
    _, block, what = sender.split(".")
    found, side = part(raw, family, int(block), f"{what}_out")
    assert side == "output"
    return found


@contextmanager
def reads(component: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A module's first input changed, and nobody else's."""

    def put(_: Any, args: tuple, kwargs: dict) -> tuple:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    handle = component.register_forward_pre_hook(put, with_kwargs=True)
    yield
    handle.remove()


@torch.no_grad()
def said(raw: Any, ids: list[int], inputs: Any = (), outputs: Any = ()) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits behind the last token, what went into some modules and what came out of some."""
    went, came = {}, {}
    with ExitStack() as stack:
        for k, m in enumerate(inputs):
            stack.enter_context(reads(m, lambda x, k=k: went.setdefault(k, x)))
        for k, m in enumerate(outputs):
            handle = m.register_forward_hook(lambda _, __, out, k=k: came.update({k: first(out).clone()}))
            stack.callback(handle.remove)
        logits = raw(torch.tensor([ids])).logits[:, -1]
    return logits, [went[k] for k in range(len(went))], [came[k] for k in range(len(came))]


def streams(raw: Any, family: str, ids: list[int], receivers: Any) -> dict[str, Tensor]:
    """The residual stream that the norm of each receiver reads."""
    norms = [reader(raw, family, receiver)[0] for receiver in receivers]
    return dict(zip(receivers, said(raw, ids, inputs=norms)[1], strict=True))


@torch.no_grad()
def along(raw: Any, family: str, ids: list[int], stream: Tensor, receiver: str) -> Tensor:
    """Logits when one receiver reads the norm of another residual stream; its norm as such runs as always."""
    norm, component = reader(raw, family, receiver)
    other = norm(stream)
    with reads(component, lambda _: other):
        return said(raw, ids)[0]


def depth(name: str, family: str) -> float:
    if name == "logits":
        return LAYERS
    _, block, what = name.split(".")
    return int(block) + (0.5 if what == "mlp" and family != "gpt_neox" else 0)  # that one computes both side by side


def test_a_path_is_what_it_is_by_hand(pairs: Any, family: str, folder: Callable[[str], Any]) -> None:
    model, clean, corrupted, metric = pairs
    found = path_patching(model, clean, corrupted, metric, receivers=[*EVERY, "logits"], progress=False)
    assert found.receivers == (*EVERY, "logits")
    assert [site for site, _ in found.senders] == [
        name for n in range(LAYERS) for name in (f"blocks.{n}.hook_attn_out", f"blocks.{n}.hook_mlp_out")
    ]
    raw: Any = raw_model(folder(family))
    modules = [writer(raw, family, sender) for sender in EVERY]
    paths = 0
    for text in range(2):
        ids = [model.tokenizer(side[text])["input_ids"] for side in (clean, corrupted)]
        (goal, _, right), (base, _, wrong) = (said(raw, each, outputs=modules) for each in ids)
        assert float(found.clean[text]) == pytest.approx(float(metric(goal, [text])), abs=1e-4)
        assert float(found.corrupted[text]) == pytest.approx(float(metric(base, [text])), abs=1e-4)
        own = streams(raw, family, ids[1], found.receivers)
        for i, sender in enumerate(EVERY):
            for k, receiver in enumerate(found.receivers):
                effect = float(found.effect[text, i, k])
                if depth(sender, family) >= depth(receiver, family):
                    assert effect != effect, f"no path leads from {sender} to {receiver}"
                    continue
                logits = along(raw, family, ids[1], own[receiver] + right[i] - wrong[i], receiver)
                assert effect == pytest.approx(float(metric(logits - base, [text])), abs=2e-4), (sender, receiver)
                paths += 1
    assert paths == 2 * int((~found.recovered.isnan()).sum())
    assert found.effect.nan_to_num().abs().max() > 1e-2, "paths that do nothing show nothing"


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"], indirect=True)
def test_heads_send_through_what_their_block_writes(pairs: Any, family: str, folder: Callable[[str], Any]) -> None:
    model, clean, corrupted, metric = pairs
    senders, receivers = ("blocks.*.hook_mlp_out", HEADS), ["blocks.1.mlp", "blocks.3.attn", "logits"]
    found = path_patching(model, clean, corrupted, metric, senders, receivers, by_head=True, progress=False)
    of_block = [("blocks.{}.attn.hook_z", head) for head in range(4)] + [("blocks.{}.hook_mlp_out", None)]
    assert list(found.senders) == [(site.format(n), head) for n in range(LAYERS) for site, head in of_block]
    raw: Any = raw_model(folder(family))
    for text in range(2):
        ids = [model.tokenizer(side[text])["input_ids"] for side in (clean, corrupted)]
        read = streams(raw, family, ids[1], receivers)
        for block, head in ((0, 1), (1, 3)):
            write, mix = writer(raw, family, f"blocks.{block}.attn"), blocks(raw)[block].self_attn.o_proj
            (_, (z,), _), (base, _, (own,)) = said(raw, ids[0], inputs=[mix]), said(raw, ids[1], outputs=[write])
            columns = head_parts(model, f"blocks.{block}.attn.hook_z")[head]

            def one_head(x: Tensor, z: Tensor = z, columns: slice = columns) -> Tensor:
                return torch.cat([x[..., : columns.start], z[..., columns], x[..., columns.stop :]], dim=-1)

            with reads(mix, one_head):
                _, _, (other,) = said(raw, ids[1], outputs=[write])
            for k, receiver in enumerate(receivers):
                logits = along(raw, family, ids[1], read[receiver] + other - own, receiver)
                effect = float(found.effect[text, found.senders.index((f"blocks.{block}.attn.hook_z", head)), k])
                assert effect == pytest.approx(float(metric(logits - base, [text])), abs=2e-4), (block, head, receiver)


def test_an_edit_where_a_receiver_reads_changes_its_branch_alone(pairs: Any) -> None:
    model, _, corrupted, _ = pairs
    own = it.capture(model, corrupted, [f"blocks.2.hook_{name}" for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")])
    for norm, changed in (("ln1", "attn_out"), ("ln2", "mlp_out")):
        with it.applied(model, it.Intervention(f"blocks.2.{norm}.hook_in", lambda a: a + torch.arange(a.shape[1]))):
            new = it.capture(model, corrupted, list(own))
        parts = [new[f"blocks.2.hook_{name}"] for name in ("resid_pre", "attn_out", "mlp_out")]
        torch.testing.assert_close(new["blocks.2.hook_resid_post"], sum(parts), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(parts[0], own["blocks.2.hook_resid_pre"])
        assert (new[f"blocks.2.hook_{changed}"] - own[f"blocks.2.hook_{changed}"]).abs().max() > 1e-2


def test_the_last_block_speaks_to_the_logits_alone(pairs: Any) -> None:
    """Where there is only the direct path, it is all that patching does."""
    model, clean, corrupted, metric = pairs
    last = f"blocks.{LAYERS - 1}.hook_mlp_out"
    found = path_patching(model, clean, corrupted, metric, last, progress=False)
    assert found.receivers == ("logits",)
    whole = activation_patching(model, clean, corrupted, metric, last, by_position=False, progress=False)
    torch.testing.assert_close(found.effect, whole.effect, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2"], indirect=True)
def test_what_is_found_is_shown(pairs: Any) -> None:
    model, clean, corrupted, metric = pairs
    found = path_patching(model, clean, corrupted, metric, receivers=("blocks.*.mlp", "logits"), progress=False)
    assert found.receivers == ("blocks.0.mlp", "blocks.1.mlp", "blocks.2.mlp", "blocks.3.mlp", "logits")
    frame = found.to_frame()
    assert len(frame) == int((~found.recovered.isnan()).sum()) < found.recovered.numel()
    assert list(frame) == ["sender", "head", "receiver", "n", "effect", "half", "recovered"]
    best: Any = frame.iloc[int(frame.recovered.argmax())]
    assert f"most {best.recovered:.2f} from {best.sender} to {best.receiver}" in repr(found)
    i, k = [site for site, _ in found.senders].index(best.sender), found.receivers.index(best.receiver)
    assert best.half == pytest.approx(12.706 * float(found.effect[:, i, k].std()) / 2**0.5, rel=1e-4)
    drawn: Any = found.plot().data[0]
    assert list(drawn.y) == [site for site, _ in found.senders]
    assert [[cell == "" for cell in row] for row in drawn.text] == found.recovered.isnan().tolist()
    assert drawn.zmax == pytest.approx(frame.recovered.abs().max())
    alone = path_patching(model, clean[:1], corrupted[:1], metric, receivers="logits", progress=False)
    assert alone.to_frame().half.isna().all() and "n 1" in repr(alone)
    everywhere = path_patching(model, clean, corrupted, metric, progress=False)
    assert everywhere.receivers == (*EVERY[1:], "logits"), "nothing speaks to the first block's attention"


@pytest.mark.parametrize("family", ["llama", "gemma2"], indirect=True)
def test_a_hooked_transformer_serves_the_logits(pairs: Any, family: str, folder: Callable[[str], Any]) -> None:
    model, clean, corrupted, metric = pairs
    old = hooked_transformer(folder(family))
    found, expected = (path_patching(m, clean, corrupted, metric, receivers="logits", progress=False) for m in (old, model))
    torch.testing.assert_close(found.effect, expected.effect, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="wrapper='bridge', or take receivers='logits'"):
        path_patching(old, clean, corrupted, never, progress=False)


def never(*_: Any) -> Tensor:
    raise AssertionError("refused only after a model was run for its logits")


def test_bad_input_is_refused_before_any_work(wrapped: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrapped("gemma2")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("pair 0 has", {"clean": ["abcdef"]}),
        ("at least one", {"clean": [], "corrupted": []}),
        ("'blocks.0.hook_resid_pre' is no part of", {"senders": "blocks.*.hook_resid_pre"}),
        ("did you mean", {"senders": "blocks.0.hook_attn_outt"}),
        ("no site of attention heads", {"by_head": True}),
        ("did you mean 'blocks.1.attn'", {"receivers": "blocks.1.atn"}),
        ("N from 0 to 3", {"receivers": ["logits", "blocks.4.mlp"]}),
        ("no receiver given", {"receivers": []}),
        ("no path leads", {"senders": "blocks.2.hook_mlp_out", "receivers": ["blocks.0.attn", "blocks.2.mlp"]}),
    ]
    for match, changes in wrong:
        with pytest.raises(ValueError, match=match):
            path_patching(model, **{"clean": ["a"], "corrupted": ["b"], "metric": never, "progress": False, **changes})
    monkeypatch.setattr(model.cfg, "use_attn_in", True, raising=False)
    with pytest.raises(ValueError, match="does not read through its norm"):
        path_patching(model, ["a"], ["b"], never, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(module, "_NORMS", {"attn": "ln1_post", "mlp": "ln2"})  # as it would be in OLMo 2
    with pytest.raises(ValueError, match="norms elsewhere"):
        path_patching(model, ["a"], ["b"], never, progress=False)
