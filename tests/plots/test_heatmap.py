from typing import Any

import pytest

from interp_transfer.plots.heatmap import layer_heatmap


def test_every_value_is_in_its_cell_and_nan_is_empty():
    figure: Any = layer_heatmap([[0.5, float("nan")], [0.25, 1.0], [0.0, 0.125]], "a<b", "c")
    drawn = figure.data[0]
    assert [list(row) for row in drawn.text] == [["0.50", ""], ["0.25", "1.00"], ["0.00", "0.12"]]
    assert (drawn.zmin, drawn.zmax) == (0, 1)
    assert figure.layout.yaxis.title.text == "block of a&lt;b"
    assert figure.layout.yaxis.autorange == "reversed", "the first block is on top"


@pytest.mark.parametrize("values", [[], [[]], [[1.0], [1.0, 2.0]]])
def test_what_is_no_table_is_refused(values):
    with pytest.raises(ValueError, match="rectangular"):
        layer_heatmap(values, "a", "b")
