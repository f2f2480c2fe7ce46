"""Files appear whole or not at all, a full disk is reported with the file, and a folder has one writer."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from interp_transfer.io import atomic_write, locked_folder, parse_json, tensors_digest, write_json, write_tensors


@pytest.mark.parametrize("name", ["x.json", "x.safetensors"])
def test_a_full_disk_is_reported_with_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for method in ("write_text", "write_bytes"):
        monkeypatch.setattr(Path, method, full)
    with pytest.raises(OSError) as error:
        write_json(tmp_path / name, {}) if name == "x.json" else write_tensors(tmp_path / name, {"a": torch.ones(2)})
    assert str(tmp_path / name) in str(error.value) and not list(tmp_path.iterdir())


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_write(tmp_path / "x"):
        (tmp_path / "elsewhere").read_text()


def test_tensors_are_written_to_the_one_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []
    real = Path.replace

    def replace(part: Path, path: Path) -> Path:
        seen.append(list(tmp_path.iterdir()))
        return real(part, path)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr("safetensors.torch.save_file", lambda *_, **__: pytest.fail("its own temporary file survives a kill"))
    write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    assert seen == [[tmp_path / ".x.safetensors.part"]] and list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    folder, refused = tmp_path / "new", "another writer is at work in '.*new': wait for it or end it"
    with locked_folder(folder), pytest.raises(ValueError, match=refused), locked_folder(folder):
        pass
    with locked_folder(folder):
        assert folder.is_dir()


def test_a_digest_covers_names_types_and_shapes() -> None:
    row = torch.arange(6, dtype=torch.float32)
    same = {"a": row, "b": row}
    others = [{"a": row.reshape(2, 3), "b": row}, {"a": row.view(torch.int32), "b": row}, {"a": row, "c": row}, {"a": row}]
    assert tensors_digest(dict(reversed(same.items()))) == tensors_digest(same)
    assert all(tensors_digest(other) != tensors_digest(same) for other in others)


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63)), f"[{10**400}]", "NaN", '{"a": -Infinity}', '"\\ud800"'])
def test_json_of_a_file_holds_numbers_and_text_that_can_be_used(text: str) -> None:
    with pytest.raises(ValueError, match="is beyond 64 bits|is not a number|surrogates not allowed"):
        parse_json(text)
    assert parse_json(f'[{2**63 - 1}, 1e3, "\\ud83d\\ude00"]') == [2**63 - 1, 1000.0, "\U0001f600"]
