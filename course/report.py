"""What a run leaves behind: live progress, a table in the terminal, report.json and report.html."""

import json
import os
import sys
from dataclasses import asdict
from html import escape
from pathlib import Path
from time import monotonic

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as literal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from course.verdict import Result

PAUSE = 30.0  # s between two lines about one notebook when no terminal shows the progress


def write(path: Path, text: str) -> None:
    """Write all of `text` or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def as_dict(result: Result) -> dict:
    """The result with its verdict, the first failure, and the points' total."""
    failures = [asdict(f) for f in result.failures]
    return asdict(result) | {
        "verdict": "passed" if result.ok else "failed",
        "points_total": sum(result.points.values()),
        "first_failure": failures[0] if failures else None,
    }


class Display:
    """Progress of all notebooks: bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        text = TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("cell")
        self.bars = Progress(*text, MofNCompleteColumn(), TimeElapsedColumn(), console=console)
        self.live = console.is_terminal
        self._tasks: dict[str, int] = {}
        self._said: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._cells: dict[str, int] = {}

    def __enter__(self) -> "Display":
        if self.live:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.bars.stop()

    def line(self, text: str) -> None:
        """One line, above the bars."""
        self.console.print(literal(text), highlight=False, soft_wrap=True)

    def start(self, name: str, cells: int) -> None:
        self._begun[name] = self._said[name] = monotonic()
        self._cells[name] = cells
        if self.live:
            self._tasks[name] = self.bars.add_task(literal(name), total=cells)
        else:
            self.line(f"{name}: {cells} cells")

    def cell(self, name: str, k: int) -> None:
        """Code cell k (1 is the first) begins."""
        if self.live:
            self.bars.update(self._tasks[name], completed=k)
        elif monotonic() - self._said[name] > PAUSE:
            self._said[name] = monotonic()
            self.line(f"{name}: cell {k} of {self._cells[name]}, {monotonic() - self._begun[name]:.0f} s")

    def done(self, result: Result, kept: bool = False) -> None:
        if self.live and result.name in self._tasks:
            self.bars.remove_task(self._tasks.pop(result.name))
        note = "kept from the interrupted run" if kept else f"{result.seconds:.1f} s"
        self.line(f"{'✓' if result.ok else '✗'} {result.name}: {result.passed}/{result.expected} checks, {note}")
        for failure in result.failures:
            self.line(f"    {where(failure.cell, failure.cell_id)}{failure.message}")


def where(cell: int, cell_id: str) -> str:
    """The place of a failure; cell 0 is the notebook as a whole."""
    return f"cell {cell} ({cell_id}): " if cell_id else f"cell {cell}: " if cell else ""


def close(console: Console, results: list[Result]) -> None:
    """The closing table, and the first failure of each notebook that failed."""
    out = Table(box=SIMPLE_HEAD, pad_edge=False)
    out.add_column("notebook", overflow="fold")
    for head in ("verdict", "cells", "checks", "points", "s"):
        out.add_column(head, no_wrap=True, justify="left" if head == "verdict" else "right")
    for r in results:
        verdict = "[green]passed[/]" if r.ok else "[red]failed[/]"
        counts = f"{r.executed}/{r.cells}", f"{r.passed}/{r.expected}", f"{sum(r.points.values()):g}"
        out.add_row(literal(r.name), verdict, *counts, f"{r.seconds:.1f}")
    console.print(out)
    for r in results:
        if not r.ok:
            first = r.failures[0]
            text = f"✗ {r.name}: {where(first.cell, first.cell_id)}{first.message}"
            console.print(literal(text), highlight=False, soft_wrap=True)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% }
td, th { padding: .3em .8em; text-align: left; border-bottom: 1px solid #ccc; vertical-align: top }
.n { text-align: right } .passed { color: #046b2c } .failed { color: #a80000; font-weight: 600 }
pre { overflow-x: auto; background: #f4f4f4; padding: .8em; font-size: 13px }
"""


def html(about: dict, notebooks: list[dict]) -> str:
    """One page that needs nothing else. `about` describes the run, `notebooks` are from `as_dict`."""
    passed = sum(n["verdict"] == "passed" for n in notebooks)
    head = "".join(f"<th>{h}</th>" for h in ("notebook", "verdict", "cells", "checks", "points by part", "points", "s"))
    facts = " · ".join(escape(f"{k} {v}") for k, v in about.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{passed} of {len(notebooks)} notebooks passed</title><style>{STYLE}</style></head><body>"
        f"<h1>{passed} of {len(notebooks)} notebooks passed</h1><p>{facts}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, notebooks))}</tbody></table>"
        f"{''.join(_failures(n) for n in notebooks if n['failures'])}</body></html>\n"
    )


def _row(n: dict) -> str:
    name, points = escape(n["name"]), ", ".join(f"{part}: {p:g}" for part, p in n["points"].items())
    cells = [
        f'<td><a href="notebooks/{name}.ipynb">{name}</a></td>',
        f'<td class="{n["verdict"]}">{n["verdict"]}</td>',
        f'<td class="n">{n["executed"]}/{n["cells"]}</td>',
        f'<td class="n">{n["passed"]}/{n["expected"]}</td>',
        f'<td>{escape(points)}</td><td class="n">{n["points_total"]:g}</td>',
        f'<td class="n">{n["seconds"]:.1f}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _failures(n: dict) -> str:
    lines = "".join(f"<li>{escape(where(f['cell'], f['cell_id']) + f['message'])}</li>" for f in n["failures"])
    trace = escape(n["first_failure"]["traceback"])
    return f"<h2>{escape(n['name'])}</h2><ol>{lines}</ol>" + (f"<pre>{trace}</pre>" if trace else "")


def save(folder: Path, about: dict, results: list[Result]) -> None:
    """Write report.json and report.html into `folder`."""
    notebooks = [as_dict(r) for r in results]
    write(
        folder / "report.json",
        json.dumps(about | {"notebooks": notebooks}, indent=1, ensure_ascii=False) + "\n",
    )
    write(folder / "report.html", html(about, notebooks))


def console() -> Console:
    """The terminal; as wide as needed where it is none, so that lines stay whole."""
    return Console() if sys.stdout.isatty() else Console(width=160)
