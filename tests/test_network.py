"""Nothing reaches for the network when the model is local. Run in processes of their own, with sockets that refuse."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BLOCKED = """
import socket

def refuse(*args, **kwargs):
    raise RuntimeError(f"the network was reached for: {args}")

class Refused(socket.socket):
    connect = connect_ex = bind = sendto = refuse

socket.socket = Refused
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
"""
WORK = """
import traceback
import interp_transfer as it
site = "blocks.1.hook_resid_pre"
texts = ["the cat sat", "x and y"]
for name in {models!r}:
    model = it.load_model(name, device="cpu")
    vector = it.extract(model, [("the cat", "the dog"), ("one", "two")], site)
    assert it.capture(model, texts, site)[site].isfinite().all()
    assert len(it.generate(model, texts, it.add(vector), max_new_tokens=3)) == 2
for name in {wrong!r}:
    try:
        it.load_model(name)
    except ValueError:
        assert "network" not in traceback.format_exc(), traceback.format_exc()
    else:
        raise AssertionError(f"{{name}} was loaded")
print("done")
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    hidden = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, env={**env, "OMP_NUM_THREADS": "1"}, check=False
    )


def test_the_block_blocks() -> None:
    done = run("import urllib.request\nurllib.request.urlopen('http://localhost:9')")
    assert "the network was reached for" in done.stderr


@pytest.mark.slow
def test_local_folders(folder: Callable[[str], Path]) -> None:
    models = [str(folder(family)) for family in ("qwen2", "gpt2")]
    done = run(WORK.format(models=models, wrong=["./nowhere", "/no/such/place"]))
    assert done.stdout.endswith("done\n") and done.returncode == 0, done.stderr
