"""Tables keep every cell where it was put."""

import statistics

import pytest

from helpers.tables import markdown_table, spread


def test_cells_stay_in_place():
    lines = markdown_table(["a", "b"], [[1, "x"], [2, "y"]]).splitlines()
    assert [[c.strip() for c in line.strip("|").split("|")] for line in lines] == [
        ["a", "b"],
        ["---"] * 2,
        ["1", "x"],
        ["2", "y"],
    ]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"\[1\] has 1 entries; the header has 2"):
        markdown_table(["a", "b"], [[1]])


def test_spread_is_mean_and_sample_deviation():
    values = [1.0, 2.0, 4.0]
    assert spread(values, 4) == f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert spread([3.0]) == "3.00 ± nan"
