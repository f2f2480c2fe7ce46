"""How much of an ablation's loss is recovered."""

import pytest
import torch

import interp_transfer as it
from interp_transfer.evaluation.metrics import Recovered, loss_recovered
from interp_transfer.interventions.generation import generate_tokens
from interp_transfer.interventions.predictions import teacher_forced_each
from interp_transfer.interventions.transforms import Add, MeanAblate
from interp_transfer.models.tokens import tokenize
from tests.registered import SITE


@pytest.mark.parametrize(("loss", "share"), [(1.0, 1.0), (5.0, 0.0), (7.0, -0.5)])
def test_the_share_lies_between_the_model_and_its_ablation(loss: float, share: float) -> None:
    found = Recovered(loss, plain=1.0, ablated=5.0)
    assert found.share == share
    assert found.to_dict() == {"loss": loss, "plain": 1.0, "ablated": 5.0, "share": share}
    assert Recovered(loss, plain=1.0, ablated=1.0).share is None


def test_losses_are_those_under_each_replacement(models, cats) -> None:
    model, prompts = models[0], cats.clean("test")[:6]
    rows = it.capture(model, prompts, SITE)[SITE]
    ablation, push = (it.Intervention(SITE, what) for what in (MeanAblate(rows.mean(dim=0)), Add(2 * rows.std(dim=0))))
    given = tokenize(model, prompts), generate_tokens(model, prompts, max_new_tokens=6, progress=False)
    found = loss_recovered(model, *given, push, ablation)
    pushed, ablated = (teacher_forced_each(model, *given, [(one,)])[0] for one in (push, ablation))
    expected = [float(loss.mean()) for loss in (pushed.loss, pushed.loss_before, ablated.loss)]
    assert [found.loss, found.plain, found.ablated] == pytest.approx(expected, rel=1e-5)
    assert found.plain < min(found.loss, found.ablated), "the model's own greedy answers are its likeliest"
    nothing = it.Intervention(SITE, Add(torch.zeros(rows.shape[1])))
    for replacement, share in ((ablation, 0), (nothing, 1)):
        assert loss_recovered(model, *given, replacement, ablation).share == pytest.approx(share, abs=1e-4)
