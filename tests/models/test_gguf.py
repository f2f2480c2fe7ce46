"""GGUF files: de-quantized once, kept by their hash, and refused when they are damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import interp_transfer as it
from interp_transfer.models import gguf, locate
from interp_transfer.models.identity import identity
from tests.checkpoints import TEXTS
from tests.gguf_files import CHAT, write_gguf

SITE = "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and the GGUF file made from it."""
    root = tmp_path_factory.mktemp("gguf")
    return root / "folder", write_gguf(root / "folder", root / "tiny.Q8_0.gguf")


@pytest.fixture
def file(written: tuple[Path, Path], tmp_path: Path, user_cache: Path) -> Path:  # noqa: ARG001
    """The GGUF file, alone in a folder; the cache is empty."""
    return Path(shutil.copy(written[1], tmp_path / "tiny.gguf"))


def cached(user_cache: Path) -> list[str]:
    """The names of what the cache holds of GGUF files, but for locks."""
    return [path.name for path in user_cache.rglob("gguf/*") if path.suffix != ".lock"]


def test_a_gguf_file_is_the_model_it_was_made_from_in_fewer_bits(written: tuple[Path, Path], file: Path) -> None:
    original, model = it.load_model(written[0], device="cpu"), it.load_model(file, device="cpu")
    assert model.cfg.dtype == torch.bfloat16
    ours, theirs = (it.capture(m, TEXTS, [SITE])[SITE].float() for m in (model, original))
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.99
    assert (ours - theirs).norm() < 0.03 * theirs.norm()
    assert model.tokenizer(TEXTS)["input_ids"] == original.tokenizer(TEXTS)["input_ids"]
    assert model.tokenizer.chat_template == CHAT
    assert identity(model).name == str(file)


@pytest.mark.skipif(not hasattr(transformers, "GgufConfig"), reason="this transformers always unpacks")
def test_weights_are_unpacked_where_a_kernel_could_read_them_packed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, real = [], transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: asked.append(k) or real(*a, **k))
    it.load_model(file, device="cpu")
    assert [one["quantization_config"].dequantize for one in asked if "gguf_file" in one] == [True]


def test_it_is_converted_once(file: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identity(it.load_model(file, device="cpu"))
    assert cached(user_cache) == [gguf.file_hash(file)]
    monkeypatch.setattr(gguf, "_convert", lambda *_: pytest.fail("converted again"))
    other = Path(shutil.copy(file, file.with_name("renamed.gguf")))
    again = it.load_model(str(other), device="cpu", dtype="float32")
    assert identity(again).fingerprint == first.fingerprint
    assert again.cfg.dtype == torch.float32
    assert identity(it.load_model(again)).fingerprint == first.fingerprint, "also when it is passed on as an object"


def test_a_gguf_file_and_the_folder_made_from_it_are_two_models(file: Path, user_cache: Path) -> None:
    ours = identity(it.load_model(file, device="cpu")).fingerprint
    [folder] = user_cache.rglob(f"gguf/{gguf.file_hash(file)}")
    assert identity(it.load_model(folder, device="cpu")).fingerprint != ours


def test_a_folder_or_hub_name_with_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = identity(it.load_model(file, device="cpu")).fingerprint
    by_folder = it.load_model(file.parent, gguf_file="tiny.gguf", device="cpu")
    assert identity(by_folder).fingerprint == by_path
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(file))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, timeout: url)
    from_hub = it.load_model("someone/tiny-GGUF", gguf_file="tiny.gguf", revision="v1", device="cpu")
    assert identity(from_hub).fingerprint == by_path
    assert asked == [(("someone/tiny-GGUF", "tiny.gguf"), {"revision": "v1"})]
    with pytest.raises(ValueError, match=r"holds no 'tny.gguf': did you mean 'tiny.gguf'\?"):
        it.load_model(file.parent, gguf_file="tny.gguf")
    with pytest.raises(ValueError, match="holds no config.json.*gguf_file="):
        it.load_model(file.parent)
    with pytest.raises(ValueError, match="gguf_file= is for models that are loaded by name"):
        it.load_model(by_folder, gguf_file="tiny.gguf")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file(kept: float, file: Path, user_cache: Path) -> None:
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(ValueError, match=r"tiny.gguf' is cut or no GGUF file \(.*\): fetch it again") as error:
        it.load_model(file)
    assert "\n" not in str(error.value)
    assert not cached(user_cache)


def test_other_files_are_no_gguf_files(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"PK\x03\x04" + bytes(4000))
    with pytest.raises(ValueError, match="is cut or no GGUF file"):
        it.load_model(file)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="model.bin' is no folder and no .gguf file"):
        it.load_model(tmp_path / "model.bin")
    with pytest.raises(ValueError, match="there is no folder 'missing.gguf'"):
        it.load_model("missing.gguf")


def test_an_architecture_that_transformers_does_not_know(tmp_path: Path, user_cache: Path) -> None:
    file = write_gguf(tmp_path / "folder", tmp_path / "odd.gguf", architecture="nobody")
    with pytest.raises(
        ValueError, match=r"cannot convert .*odd.gguf' \(.*nobody.*\): load the checkpoint that it was made from"
    ):
        it.load_model(file)
    assert not cached(user_cache)


def test_no_space(file: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    with pytest.raises(ValueError, match=r"has 0.1 GB of space, and 0.1 GB are needed: free some, or set XDG_CACHE_HOME"):
        it.load_model(file)
    assert not cached(user_cache)


def test_an_interrupted_conversion_leaves_nothing(file: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: Path, out: Path) -> None:
        (out / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gguf, "_convert", stop)
        it.load_model(file)
    assert not cached(user_cache)
    (user_cache / "interp_transfer" / "gguf" / f".{gguf.file_hash(file)}.part").mkdir()  # as a killed process leaves it
    assert it.load_model(file, device="cpu")
    assert cached(user_cache) == [gguf.file_hash(file)]


def test_without_the_package_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ValueError, match=r"^'.*' needs gguf, which is not installed: pip install 'interp-transfer\[gguf\]'$"):
        it.load_model(file)


def test_a_known_model_may_be_a_gguf_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp_transfer.plugins import KnownModel

    known: dict[str, Any] = {"tiny": KnownModel("tiny", file, fetched=True)}
    known["absent"] = KnownModel("absent", file.with_name("none.gguf"), fetched=True)
    find: Callable[[str], Any] = known.get
    monkeypatch.setattr(locate, "known_model", find)
    assert identity(it.load_model("tiny", device="cpu")).name == "tiny"
    with pytest.raises(ValueError, match="fetch it with `interp-transfer models get absent`"):
        it.load_model("absent")


def test_weights_that_are_not_finite_and_texts_that_do_not_fit_name_the_file(file: Path) -> None:
    whole = file.read_bytes()
    for old, new, says in (
        (b"gpt2", b"gp\x00\x19", "cannot convert"),
        (b"12\x02\x00\x00\x00\x00\x00\x00\x00ar", b"12\x02\x00\x00\x00\x00\x00\x00\x00??", "cannot convert .*BPE"),
        (b"qwen2.embedding_length", b"qwen2.embedding_lengtX", "its embedding_length is None, and its embeddings are 32 wide"),
        (np.float32(1e-6).tobytes(), np.float32(np.nan).tobytes(), "computes NaN or infinity"),
    ):
        assert whole.count(old) >= 1
        file.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=says) as error:
            it.load_model(file, device="cpu")
        assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_count_beyond_the_file_is_refused_at_once(file: Path) -> None:
    whole = file.read_bytes()
    place = whole.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type") + 8
    for count in (10**12, 2**63):
        file.write_bytes(whole[:place] + count.to_bytes(8, "little") + whole[place + 8 :])
        with pytest.raises(ValueError, match="tiny.gguf' is cut or no GGUF file"):
            it.load_model(file, device="cpu")
    for name, says in (("block_count", "it has 51 tensors"), ("attention.head_count", "no axis of its tensors is longer")):
        place = whole.index(f"qwen2.{name}".encode()) + len(f"qwen2.{name}") + 4
        file.write_bytes(whole[:place] + (2**16).to_bytes(4, "little") + whole[place + 4 :])
        with pytest.raises(ValueError, match=f"its {name} is 65536, and {says}"):
            it.load_model(file, device="cpu")
