"""`interp-transfer demo-real`: the main job on two real models."""

from pathlib import Path

from interp_transfer.cli.models import get_model
from interp_transfer.cli.options import Out
from interp_transfer.cli.run import run_and_show
from interp_transfer.studies.folders import free_folder

SOURCE, TARGET = "smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"


def demo_real(out: Out = None) -> None:
    """Fetch two real models of different families, and make one answer in French by a vector of the other."""
    for name in (SOURCE, TARGET):
        get_model(name)
    options = {"mapper": "affine", "texts": "task", "max_new_tokens": 16, "quick": True}
    run_and_show("french", SOURCE, TARGET, out or free_folder(Path("runs") / "demo-real"), as_json=False, **options)
