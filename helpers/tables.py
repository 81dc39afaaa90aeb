"""Small tables of results, shown as Markdown. What stands in them is computed elsewhere."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows of text as a Markdown table. Raises ValueError for a row of another length than the header."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {list(row)} has {len(row)} entries; the header has {len(header)}")
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Display `markdown_table(header, rows)` below a cell."""
    from IPython.display import Markdown, display

    display(Markdown(markdown_table(header, rows)))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """ "mean ± standard deviation" of a few seeds, with n − 1 in the denominator."""
    n, mean = len(values), sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5 if n > 1 else float("nan")
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"
