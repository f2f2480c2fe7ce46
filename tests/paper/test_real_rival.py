"""Another recipe beside ours: what its map is, which token it pools, and the rule that decides."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from interp_transfer.activations.capture import capture
from interp_transfer.evaluation import evaluator
from interp_transfer.evaluation.clean_kl import CleanKL
from interp_transfer.models.load import load_model
from interp_transfer.models.tokens import tokenize, tokenizer_of
from interp_transfer.paper.kinds import kind
from interp_transfer.paper.measures import real_refusal, real_rival, real_traits
from interp_transfer.paper.measures.real_rival import (
    ALL_BLOCKS,
    BY_CHATS,
    CELLS,
    COUNTED,
    ONE_BLOCK,
    OURS,
    Recipe,
    last_content,
    least_squares,
)
from interp_transfer.paper.neutral import DIRECTIVE, neutral_chats
from interp_transfer.paper.registered import pretrained
from interp_transfer.paper.setup import Setup
from interp_transfer.prompts.chats import Chat
from interp_transfer.stats import Estimate, rate
from interp_transfer.vectors.extract import extract
from tests.paper.test_real_edition import TEMPLATE

SITES = ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre"]
CHATS = [
    Chat((("system", "Be brief."), ("user", f"What is {k}?"), ("assistant", f"It is number {k}, {'x' * k}."))) for k in range(9)
]


@pytest.fixture
def setup(traits_setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Few and short answers, few chats, and an encoder that needs no download."""
    monkeypatch.setattr(real_rival, "PARTS", real_traits.PARTS)
    for module in (real_traits, real_rival):
        monkeypatch.setattr(module, "ANSWER_TOKENS", 4)
        monkeypatch.setattr(module, "ready_prompts", lambda _: [real_traits._chat(f"Say {k}?") for k in range(20)])
    monkeypatch.setattr(real_rival, "neutral_chats", lambda: CHATS)
    monkeypatch.setattr(real_refusal, "TOKENS", 2)
    monkeypatch.setattr(real_refusal, "VALIDATION", 4)
    return traits_setup


@pytest.fixture
def models(folder: Any, tmp_path: Path) -> tuple[str, str]:
    source, target = (str(shutil.copytree(folder(family), tmp_path / family)) for family in ("llama", "qwen2"))
    for name in (source, target):
        (Path(name) / "chat_template.jinja").write_text(TEMPLATE)
    return source, target


def test_neutral_chats_are_as_many_as_the_recipe_pools():
    chats = neutral_chats()
    assert len(chats) == len(set(chats)) == 90
    assert {role for chat in chats for role, _ in chat.messages} == {"system", "user", "assistant"}
    assert all(chat.messages[0][1] == DIRECTIVE for chat in chats)


def test_the_map_is_ridge_regression_in_the_limit_of_no_penalty():
    """Ten rows of 30 dimensions: all are reproduced, and what lies outside their span is dropped."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 30)) + 3, rng.normal(size=(10, 20)) - 5
    matrix, span = least_squares(torch.tensor(x), torch.tensor(y))
    found = matrix.numpy()
    ridge = Ridge(alpha=1e-9, solver="cholesky").fit(x, y)
    np.testing.assert_allclose(found, ridge.coef_.T, atol=1e-6)
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(centred @ found, y - y.mean(axis=0), atol=1e-9)
    outside = np.linalg.svd(centred)[2][9:]
    assert len(outside) == 21 and np.abs(outside @ found).max() < 1e-9
    assert len(span) == 9 and np.abs(outside @ span.numpy().T).max() < 1e-9
    many = rng.normal(size=(200, 30))
    exact = many @ found + 1
    np.testing.assert_allclose(least_squares(torch.tensor(many), torch.tensor(exact))[0].numpy(), found, atol=1e-9)


def test_the_last_token_that_is_not_special_is_pooled(models: tuple[str, str]):
    model = load_model(models[1])
    tokenizer = tokenizer_of(model)
    special = [*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()]
    assert special
    rows = [[*row[:4], *([special[0]] * k)] for k, row in enumerate(tokenize(model, CHATS[:3]))]
    rows[2] = [special[0]] * 3
    read = capture(model, ["", "", ""], SITES[1], last_content, ids=rows, progress=False)
    assert read.position.tolist() == [3, 3, 0]
    plain = capture(model, CHATS, SITES[1], last_content, progress=False)
    assert plain.position.tolist() == [len(row) - 1 for row in tokenize(model, CHATS)], "this template ends with a plain token"


def test_a_block_is_moved_to_the_block_of_the_same_number(models: tuple[str, str]):
    a, b = (load_model(name) for name in models)
    recipe = Recipe.fit(a, b, CHATS)
    assert list(recipe.maps) == list(range(min(a.cfg.n_layers, b.cfg.n_layers)))
    pairs = [(f"good {k}", f"bad {k}") for k in range(4)]
    vectors = recipe.vectors(a, pairs, "last")
    moved = recipe.move(vectors, b)
    site = "blocks.1.hook_resid_pre"
    x, y = (capture(model, CHATS, site, last_content, progress=False)[site].double() for model in (a, b))
    own = extract(a, pairs, site, "last", progress=False).direction.double()
    expected = own @ torch.linalg.lstsq(x - x.mean(0), y - y.mean(0), driver="gelsd", rcond=1e-4).solution
    assert moved[0].site == "blocks.0.hook_resid_post", "the output of a block is the input of the next"
    torch.testing.assert_close(moved[0].direction.double(), expected, rtol=1e-3, atol=1e-5)
    rows = x - x.mean(0)
    within = rows.T @ torch.linalg.lstsq(rows.T, own, driver="gelsd", rcond=1e-4).solution
    assert recipe.inside(vectors)[0] == pytest.approx(float(within.square().sum() / own.square().sum()), abs=1e-3)
    with pytest.raises(ValueError, match="give the input or the output"):
        real_rival._block_of("blocks.1.attn.hook_z")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("behaviour", ["refusal", pytest.param("formal", marks=pytest.mark.slow)])
def test_only_the_recipe_is_computed_where_our_vector_was_judged_before(
    setup: Setup, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch, behaviour: str
):
    how: dict[str, Any] = {"directions": 2, "dtype": "float32"}
    if behaviour == "refusal":
        before = real_refusal.measure(setup, *models, sites=SITES, tests=["jailbreakbench"], **how)
    else:
        before = real_traits.measure(setup, *models, sites=SITES, traits=[behaviour], **how)
        how["conditions"] = ["random", "shuffled"]
    tried: list[list[str]] = []
    answer, cost = evaluator.completions_each, CleanKL.__call__

    def answer_seen(model: Any, prompts: Any, settings: Any, *rest: Any) -> Any:
        tried.extend([str(one.site) for one in setting] for setting in settings)
        return answer(model, prompts, settings, *rest)

    def cost_seen(self: Any, model: Any, settings: Any, *rest: Any) -> Any:
        tried.extend([str(one.site) for one in setting] for setting in settings)
        return cost(self, model, settings, *rest)

    monkeypatch.setattr(evaluator, "completions_each", answer_seen)
    monkeypatch.setattr(CleanKL, "__call__", cost_seen)
    rows = real_rival.measure(setup, *models, sites=SITES, behaviour=behaviour, **how)
    check_rows(rows)
    blocks = [f"blocks.{block}.hook_resid_post" for block in range(4)]
    assert {len(sites) for sites in tried} == {1, 4}
    assert all(sites in (blocks[: len(sites)], [SITES[1]]) for sites in tried)
    known = {row["condition"]: row for row in before}
    for row in rows[:4]:
        assert all(row[column] == known[row["condition"]][column] for column in ("success", "strength", "clean KL"))


def check_rows(rows: list[Any]) -> None:
    """The conditions in their order, where they steer, and counts of every prompt."""
    assert [row["condition"] for row in rows] == ["unsteered", "native", OURS, "random", BY_CHATS, ONE_BLOCK, ALL_BLOCKS]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert rows[2]["steered at"] == rows[4]["steered at"] == SITES[1] and rows[5]["steered at"] == "blocks.0.hook_resid_post"
    assert rows[6]["steered at"] == "blocks.0.hook_resid_post to blocks.3.hook_resid_post"
    assert [row["in span"] is not None for row in rows] == [False] * 5 + [True, False]
    counted = [row[COUNTED] for row in rows]
    assert counted[:4] == [None] * 4 and all(sum(map(int, str(each).split("/"))) == 6 for each in counted[4:])
    assert kind("real_rival").verdict({"one": rows}).agrees == "cannot tell"
    assert list(real_rival.chart({"one": rows}).cases["one"]) == [row["condition"] for row in rows]


def rows_of(one: str, every: str, cost: float = 0.1, chance: int = 30) -> list[dict[str, Any]]:
    """The counts of both forms of the recipe, whose clean KL is .1, and that of ours; all but random: half succeed."""
    counts = {"unsteered": None, OURS: None, "random": None, ONE_BLOCK: one, ALL_BLOCKS: every}
    shares = {name: rate([k < (chance if name == "random" else 50) for k in range(100)]) for name in counts}
    rows = [{"condition": name, "success": shares[name], COUNTED: count} for name, count in counts.items()]
    return [
        {**row, "clean KL": Estimate(kl, kl, kl, 100)} for row in rows for kl in [cost if row["condition"] == OURS else 0.1]
    ]


AHEAD = ("10/30/5/55", "0/40/0/60")
LEVEL = ("40/10/10/40", "0/40/0/60")
BEHIND = ("0/40/0/60", "5/0/40/55")


@pytest.mark.parametrize(
    ("cells", "answer"),
    [
        ([AHEAD] * 4 + [LEVEL] * 2, "yes"),
        ([AHEAD] * 3 + [LEVEL] * 3, "in part"),
        ([AHEAD] * 3 + [LEVEL] * 2, "cannot tell"),
        ([LEVEL] * 3 + [BEHIND] * 3, "no"),
        ([BEHIND] * 3, "no"),
    ],
)
def test_the_rule_is_the_registered_one(cells: list[tuple[str, str]], answer: str):
    found = kind("real_rival").verdict({f"cell {k}": rows_of(*counts) for k, counts in enumerate(cells)})
    assert found.agrees == answer
    assert len(found.details) == len(cells) and "ours minus" in found.details[0]


def test_a_cell_in_which_ours_costs_more_or_does_no_more_than_random_is_not_ahead():
    def found(cost: float = 0.1, chance: int = 30) -> Any:
        return kind("real_rival").verdict({str(k): rows_of(*AHEAD, cost, chance) for k in range(CELLS)})

    assert found(0.12).agrees == "yes" and found(0.13).agrees == "no"
    assert found(chance=45).agrees == "no" and "ours is not above random" in found(chance=45).details[0]
    assert "not at equal cost: clean KL 0.130, that of recipe, one block 0.100" in found(0.13).details[0]


def test_the_registered_cells_are_six_and_the_interval_decides():
    one = pretrained()["rival"]
    assert len(one.cases) == CELLS and "at least 4 of 6" in one.registered["threshold"]
    barely, clearly = (real_rival.ahead({COUNTED: counts}) for counts in ("30/12/5/53", "30/16/2/52"))
    assert barely.difference > 0 and barely.low < 0 < clearly.low
