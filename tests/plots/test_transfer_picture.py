"""The picture of a transfer."""

from typing import Any

from interp_transfer.plots.transfer import LONGEST, transfer_picture

ARROW = {"from": [0.0, 0.0], "to": [3.0, 0.5], "in_plane": 0.625}
PLANES = {
    "source": {
        "model": "a<b>",
        "site": "blocks.1.hook_resid_pre",
        "points": {"source, positive": [[3.0, 1.0], [2.0, 1.0]], "source, negative": [[0.0, 1.0]]},
        "arrows": {"source": ARROW},
    },
    "target": {
        "model": "b",
        "site": "blocks.2.hook_resid_pre",
        "points": {"moved, positive": [[3.0, 1.0], [2.0, 1.0]], "native, positive": [[0.0, 1.0], [5.0, 5.0]]},
        "arrows": {"moved": ARROW, "native": ARROW},
    },
    "texts": {"positive": ["<i>one</i>", "x" * 500], "negative": []},
}


def test_each_side_and_vector_is_drawn_in_its_plane_and_named_once() -> None:
    figure: Any = transfer_picture(PLANES)
    by_axis = {axis: [t for t in figure.data if t.xaxis == axis] for axis in ("x", "x2")}
    assert [len(traces) for traces in by_axis.values()] == [3, 4]
    assert [t.name for t in figure.data if t.showlegend] == [
        "source, positive",
        "source, negative",
        "vector, moved below",
        "target, positive",
        "native vector",
    ]
    arrow = by_axis["x"][2]
    assert (tuple(arrow.x), tuple(arrow.y)) == ((0, 3), (0, 0.5)) and "62.5% of its length" in arrow.hovertemplate
    colours = {t.name: t.marker.color for t in figure.data}
    assert colours["source, positive"] == colours["vector, moved below"] != colours["target, positive"]
    assert "a&lt;b&gt;" in figure.layout.annotations[0].text


def test_points_of_one_prompt_share_a_number_and_texts_are_plain_and_cut() -> None:
    source, _, _, moved, native, *_ = transfer_picture(PLANES).data
    assert [row[0] for row in source.customdata] == [row[0] for row in moved.customdata] == ["positive 0", "positive 1"]
    assert [row[1] for row in native.customdata] == [row[1] for row in moved.customdata]
    one, long = (row[1] for row in source.customdata)
    assert one == "<br>&lt;i&gt;one&lt;/i&gt;" and len(long) == len("<br>") + LONGEST
