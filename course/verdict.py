"""What is known of one notebook's run: its failures, checks and points."""

import re
from dataclasses import dataclass, field

from nbformat import NotebookNode

from helpers.checks import MIME

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Failure:
    """What went wrong: the code cell (from 1; 0: no cell), its id, a line, the traceback as plain text."""

    cell: int
    cell_id: str
    message: str
    traceback: str = ""


@dataclass
class Result:
    """One notebook's run. `cells` are its non-empty code cells, `executed` those that gave a reply."""

    name: str
    seconds: float = 0.0
    cells: int = 0
    executed: int = 0
    passed: int = 0
    expected: int = 0
    points: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failures


def plain(text: str) -> str:
    """`text` without terminal colours."""
    return _ANSI.sub("", text)


def code_cells(nb: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """(index, cell) of the code cells that hold code."""
    return [(i, c) for i, c in enumerate(nb.cells) if c.cell_type == "code" and c.source.strip()]


def read_checks(nb: NotebookNode, result: Result) -> None:
    """Take checks and points from the last code cell; add a failure unless it reports all that it expects."""
    cells = code_cells(nb)
    last = cells[-1][1] if cells else NotebookNode(outputs=[])
    found = [data[MIME] for output in last.outputs if MIME in (data := output.get("data", {}))]
    where = len(cells), last.get("id", "")
    if not found:
        claimed = re.search(r"\.report\((?:expected=)?(\d+)\)", last.get("source", ""))
        result.expected = int(claimed[1]) if claimed else 0
        texts = [output.text for _, c in cells for output in c.outputs if output.output_type == "stream"]
        result.passed = sum(line.startswith("✓ ") for text in texts for line in text.splitlines())
        if result.ok:  # else the reason is known
            result.failures.append(Failure(*where, "the last code cell reports no checks: end with checks.report(…)"))
        return
    report = found[-1]
    records = report["records"]
    result.passed = sum(r["verdict"] == "✓" for r in records)
    result.expected, result.points = report["expected"], report["points"]
    wrong = [r["claim"] for r in records if r["verdict"] not in ("✓", "not judged")]
    if wrong or len(records) != result.expected or not records:
        what = f"{len(records)} checks recorded, {result.expected} expected" + (f"; not held: {wrong}" if wrong else "")
        result.failures.append(Failure(*where, what))
