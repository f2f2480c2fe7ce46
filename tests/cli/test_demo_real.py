"""`interp-transfer demo-real`: what it fetches and runs. The real thing is `make demo-real`."""

from pathlib import Path
from typing import Any

import pytest

from interp_transfer.cli.demo_real import SOURCE, TARGET
from interp_transfer.evaluation.tasks import load_task
from interp_transfer.studies.options import RunOptions


def test_it_fetches_both_and_writes_to_a_free_folder(call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fetched, runs = [], []

    def fetch(name: str, *, accept_licence: bool) -> tuple[Path, str]:
        assert not accept_licence
        fetched.append(name)
        return tmp_path / name, "cache"

    def pipeline(*args: Any, out: Path, **options: Any) -> None:
        runs.append((args, out, options))
        raise ValueError("seen")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp_transfer.models.fetch.fetch", fetch)
    monkeypatch.setattr("interp_transfer.studies.run.run", pipeline)
    for number in range(2):
        code, _, err = call("demo-real")
        assert (code, err.splitlines()[-1]) == (2, "error: seen")
        (tmp_path / "runs" / ("demo-real" if number == 0 else "demo-real-2")).mkdir(parents=True)
    assert fetched == [SOURCE, TARGET] * 2
    (args, first, options), (_, second, _) = runs
    assert args == ("french", SOURCE, TARGET) and load_task("french").name.startswith("french")
    assert (str(first), str(second)) == ("runs/demo-real", "runs/demo-real-2")
    assert RunOptions.from_dict(options).n == 16
