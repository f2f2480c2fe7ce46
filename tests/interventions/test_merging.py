"""Many interventions in one batch do what each does alone."""

from collections.abc import Callable

import pytest
import torch

import interp_transfer as it
from interp_transfer.activations.positions import substring
from interp_transfer.interventions.intervention import Intervention, add
from interp_transfer.interventions.merging import can_share, merged
from interp_transfer.interventions.transforms import Ablate, Add
from interp_transfer.models.hooked_model import HookedModel
from interp_transfer.models.identity import identity
from interp_transfer.vectors.vector import SteeringVector

SITE = "blocks.1.hook_resid_pre"


def alone_and_together(model: HookedModel, prompts: list[str], each: list[Intervention], new: int = 8) -> None:
    alone = [it.generate(model, prompts, i, max_new_tokens=new) for i in each]
    together = it.generate(model, prompts * len(each), *merged([[one] for one in each], len(prompts)), max_new_tokens=new)
    n = len(prompts)
    assert [together[k * n : k * n + n] for k in range(len(each))] == alone
    plain = it.generate(model, prompts, max_new_tokens=new)
    assert any(said != plain for said in alone), "an intervention that does nothing shows nothing"


@pytest.fixture(params=["qwen2", "llama", "gemma2", "gpt2"])
def model(wrapped: Callable[[str], HookedModel], request: pytest.FixtureRequest) -> HookedModel:
    return wrapped(request.param)


@pytest.fixture
def vector(model: HookedModel) -> SteeringVector:
    generator = torch.Generator().manual_seed(0)
    return SteeringVector(torch.randn(int(model.cfg.d_model), generator=generator), SITE, identity(model))


PROMPTS = ["a b c d", "b", "c a d b a", "b c d a"]


@pytest.mark.parametrize("rules", [("all",), ("last", "response", "generated"), ("all", -1, (0, -1), "prompt")])
def test_each_text_gets_its_own(model: HookedModel, vector: SteeringVector, rules: tuple) -> None:
    prompts = [p for p in PROMPTS if len(p) > 1 or rules != ("all", -1, (0, -1), "prompt")]
    each = [add(vector, x, rule) for rule in rules for x in (0.0, 1.0, 8.0)]
    alone_and_together(model, prompts, each)


def test_other_vectors_and_masks(model: HookedModel, vector: SteeringVector) -> None:
    generator = torch.Generator().manual_seed(1)
    other = SteeringVector(torch.randn(int(model.cfg.d_model), generator=generator), SITE, identity(model))
    mask = torch.tensor([[True, False] * 16, [False, True] * 16] * 2)
    each = [add(vector, 4.0, mask), add(other, 4.0, substring("b")), add(other, 9.0, ~mask), add(vector, 4.0, substring("b"))]
    alone_and_together(model, PROMPTS, each)


def test_what_cannot_share_a_batch_is_refused(vector: SteeringVector) -> None:
    first = add(vector, 1.0)
    others = [
        Intervention("blocks.0.hook_resid_pre", Add(vector.direction), model=vector.model),
        Intervention(SITE, Ablate(vector.direction), model=vector.model),
        add(vector, torch.ones(3)),
        add(vector, 1.0, "last"),
    ]
    assert can_share([first], [add(vector, 2.0, -1)])
    for other in others:
        assert not can_share([first], [other])
        with pytest.raises(ValueError, match="share a batch"):
            merged([[first], [other]], 2)


def test_settings_of_several_are_merged_one_by_one(model: HookedModel, vector: SteeringVector) -> None:
    generator = torch.Generator().manual_seed(1)
    other = SteeringVector(torch.randn(int(model.cfg.d_model), generator=generator), "blocks.0.hook_resid_pre", identity(model))
    each = [
        (add(vector, x, rule), add(other, y, "last"))
        for x, y, rule in ((8.0, 0.0, "all"), (0.0, 8.0, -1), (4.0, 4.0, "prompt"))
    ]
    alone = [it.generate(model, PROMPTS, *given, max_new_tokens=8) for given in each]
    together = it.generate(model, PROMPTS * 3, *merged(each, 4), max_new_tokens=8)
    assert [together[k * 4 : k * 4 + 4] for k in range(3)] == alone
    assert len({tuple(said) for said in alone}) > 1, "settings that all say the same show nothing"


def test_settings_share_a_batch_if_all_of_each_can_be_merged(vector: SteeringVector) -> None:
    one, last = add(vector, 1.0), add(vector, 1.0, "last")
    assert can_share((one, last), (add(vector, 3.0, -1), add(vector, 2.0, "response")))
    for other in ((last, one), (one,), (one, last, last), (one, Intervention(SITE, Ablate(vector.direction)))):
        assert not can_share((one, last), other)
        with pytest.raises(ValueError, match="share a batch"):
            merged([(one, last), other], 2)
    assert not can_share((), ())
    with pytest.raises(ValueError, match="share a batch"):
        merged([], 2)
