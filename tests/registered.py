"""Two tiny models and a task that a plugin registers by name, for tests of studies and of the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer import plugins
from interp_transfer.evaluation import tasks
from interp_transfer.evaluation.judges import named
from interp_transfer.plugins import KnownModel, Plugin
from tests.checkpoints import make_checkpoint

SITE = "blocks.2.hook_resid_pre"
PAIRS = 90


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `write_pairs`."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "cats.jsonl")


def write_pairs(path: Path) -> Path:
    """Write contrast pairs with right answers: cats are wanted, dogs are not."""
    lines = [{"positive": f"the cat {i} sat", "negative": f"the dog {i} sat", "answer": f" far {i}"} for i in range(PAIRS)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of random models that differ in width."""
    root = tmp_path_factory.mktemp("pair")
    return tuple(
        make_checkpoint(root / name, "llama", seed, hidden_size=width) for seed, name, width in ((0, "a", 16), (1, "b", 24))
    )  # type: ignore[return-value]


@pytest.fixture(scope="session")
def models(checkpoints: tuple[Path, Path]) -> tuple[Any, Any]:
    """The two models, wrapped."""
    return tuple(it.load_model(str(path), device="cpu") for path in checkpoints)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def cats(pairs_file: Path) -> it.Task:
    """The task of the pairs; "dog" is its trigger and "cat" the harmless twin."""
    return make_cats(pairs_file, "lacks:a")


def make_cats(pairs_file: Path, judge: Any) -> it.Task:
    """The task of the pairs with a judge."""
    task = it.Task.from_jsonl(pairs_file, judge, name="cats", max_new_tokens=3)
    pairs = list(zip(task.prompts("train"), task.answers(task.prompts("train")), strict=True)) if task.answers else []
    return replace(task, trigger="dog", safe_trigger="cat", training=lambda _: pairs)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, cats: it.Task, checkpoints: tuple[Path, Path]) -> None:
    """No plugin but one, which knows the task "cats" and the models "tiny-a" and "tiny-b" with their sites."""
    register(monkeypatch, cats, checkpoints)


def register(patch: pytest.MonkeyPatch, cats: it.Task, checkpoints: tuple[Path, Path]) -> None:
    """Replace all plugins by the one of `registered`."""

    def make(direction: str = "remove") -> it.Task:
        if direction not in ("remove", "induce"):
            raise ValueError(f"unknown direction {direction!r}: choose one of remove, induce")
        return replace(cats, opposite=lambda: replace(make("induce"), options={"direction": "induce"}))

    card = {"architecture": "LlamaForCausalLM", "parameters": 1, "tasks": [], "base": None}
    known = {
        name: KnownModel(name, path, card, site=lambda _: SITE)
        for name, path in zip(("tiny-a", "tiny-b"), checkpoints, strict=True)
    }
    only = {"pets": Plugin(models=lambda: known, tasks=lambda: {"cats": make, "switch": _switch(cats)})}
    for module in (plugins, tasks, named):
        patch.setattr(module, "plugins", lambda: only)


def _switch(task: it.Task) -> Any:
    def make(subject: str = "pets", direction: str = "to_base") -> it.Task:
        if subject != "pets":
            raise ValueError(f"unknown subject {subject!r}: choose one of pets")
        return replace(task, name="switch", description=direction)

    return make
