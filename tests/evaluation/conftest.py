"""Tiny models, a task and a sparse autoencoder, which the tests of this folder share."""

from pathlib import Path
from typing import Any

import pytest

import interp_transfer as it
from tests.checkpoints import make_checkpoint
from tests.family_tokenizers import family_tokenizer
from tests.registered import checkpoints, make_cats, models, pairs_file
from tests.tiny_sae import sae

__all__ = ["checkpoints", "models", "pairs_file", "sae"]


@pytest.fixture(scope="session")
def cats(pairs_file: Path) -> it.Task:  # noqa: F811
    """The task of the pairs, with a judge whose verdict changes whenever a completion does, about half of the times."""
    return make_cats(pairs_file, lambda _, completion: sum(map(ord, completion)) % 2 == 0)


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny model whose tokenizer has a chat template. It reads 192 tokens."""
    folder = tmp_path_factory.mktemp("chat") / "chat"
    return make_checkpoint(folder, "qwen2", tokenizer=family_tokenizer("qwen"), max_position_embeddings=192)


@pytest.fixture(scope="session")
def chat_model(chat_folder: Path) -> Any:
    """The model of that checkpoint, wrapped."""
    return it.load_model(chat_folder, device="cpu")
