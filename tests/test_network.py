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
import interp_transfer as it
model = it.load_model({model!r}, device="cpu")
site = "blocks.1.hook_resid_pre"
texts = ["the cat sat", "x and y"]
vector = it.extract(model, [("the cat", "the dog"), ("one", "two")], site)
assert it.capture(model, texts, site)[site].isfinite().all()
assert len(it.generate(model, texts, it.add(vector), max_new_tokens=3)) == 2
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


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_a_local_folder(family: str, folder: Callable[[str], Path]) -> None:
    done = run(WORK.format(model=str(folder(family))))
    assert done.stdout.endswith("done\n") and done.returncode == 0, done.stderr


def test_an_organism() -> None:
    done = run(WORK.format(model="micro-qwen-s"))
    assert done.stdout.endswith("done\n") and done.returncode == 0, done.stderr


def test_wrong_names_of_local_things_do_not_either() -> None:
    for name in ("micro-qwen-z", "./nowhere", "/no/such/place"):
        done = run(f"import interp_transfer as it\nit.load_model({name!r})")
        assert "ValueError" in done.stderr and "network" not in done.stderr, done.stderr
