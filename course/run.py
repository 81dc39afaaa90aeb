"""The main job, `make run`: execute the collection two notebooks at a time, with a live display and a report.

A run that was interrupted goes on where it stopped; what passed in a finished run is run again.
"""

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

from course.execute import Outcome, execute
from course.notebooks import ROOT, name_of, named
from helpers.checkpoints import write_atomic

BUILD = ROOT / "build" / "run"


def fingerprint(path: Path) -> str:
    """Changes when the notebook, a helper, the profile or the data folder does."""
    digest = hashlib.sha256(path.read_bytes())
    for helper in sorted((ROOT / "helpers").glob("*.py")):
        digest.update(helper.read_bytes())
    digest.update(repr([os.environ.get(k) for k in ("DGM_PROFILE", "DGM_DATA", "DGM_CHECKPOINTS")]).encode())
    return digest.hexdigest()


def worker(path: Path, target: Path, result: Path, limit: float | None) -> None:
    """In a process of its own: execute, and write the outcome atomically. Dies with its parent, as its kernel does."""

    def progress(number: int, total: int) -> None:
        print(f"{number}/{total}", flush=True)

    outcome = execute(path, target, limit, progress)
    write_atomic(result, json.dumps(asdict(outcome)).encode())


def one(path: Path, limit: float | None, show: object) -> Outcome:
    """Run a notebook in a worker process; its outcome, also when that process is killed."""
    stem = name_of(path)
    result = BUILD / "state" / f"{stem.replace('/', '__')}-{fingerprint(path)[:16]}.json"
    if result.exists():
        return Outcome(**json.loads(result.read_text(encoding="utf-8")))
    command = [sys.executable, "-m", "course.run", "--worker", str(path), str(BUILD / "notebooks" / f"{stem}.ipynb")]
    command += [str(result), str(limit or 0)]
    began = time.monotonic()
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die
    )
    for line in child.stdout or []:
        show(stem, line.strip(), time.monotonic() - began)  # type: ignore[operator]
    _, errors = child.communicate()
    if result.exists():
        return Outcome(**json.loads(result.read_text(encoding="utf-8")))
    outcome = Outcome(stem, seconds=round(time.monotonic() - began, 2))
    outcome.failures.append(("", f"the runner's process ended with status {child.returncode}\n{errors[-2000:]}"))
    return outcome


def die() -> None:
    """Ask the kernel (Linux) to end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def run(paths: list[Path], jobs: int = 2, limit: float | None = 300, live: bool | None = None) -> list[Outcome]:
    """Execute notebooks, `jobs` at a time, write the reports, and return the outcomes in the order given."""
    with display(paths, sys.stdout.isatty() if live is None else live) as show:
        with ThreadPoolExecutor(jobs) as pool:

            def task(path: Path) -> Outcome:
                outcome = one(path, limit, show)
                show(outcome.notebook, "✓" if outcome.passed else "✗", outcome.seconds)
                return outcome

            outcomes = list(pool.map(task, paths))
    report(outcomes)
    for state in (BUILD / "state").glob("*.json"):  # a finished run starts afresh next time
        state.unlink()
    return outcomes


class display:
    """Live lines with rich on a terminal, plain lines elsewhere."""

    def __init__(self, paths: list[Path], live: bool) -> None:
        self.rows = {name_of(p): ("waiting", 0.0) for p in paths}
        self.live = None
        if live:
            from rich.live import Live

            self.live = Live(self.table(), refresh_per_second=4)

    def table(self) -> object:
        """The state of every notebook."""
        from rich.table import Table

        table = Table("notebook", "cell", "seconds")
        for name, (state, seconds) in self.rows.items():
            table.add_row(name, state, f"{seconds:.0f}" if seconds else "")
        return table

    def __enter__(self) -> object:
        if self.live:
            self.live.__enter__()
        return self.show

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.__exit__(*error)

    def show(self, name: str, state: str, seconds: float) -> None:
        """Note where a notebook is."""
        self.rows[name] = (state, seconds)
        if self.live:
            self.live.update(self.table())
        elif state in "✓✗":
            print(f"{state} {name} {seconds:.1f} s", flush=True)


def report(outcomes: list[Outcome]) -> None:
    """report.json and report.html below build/run, and the table on the terminal."""
    about = {
        "date": datetime.now().isoformat(timespec="seconds"),
        "profile": os.environ.get("DGM_PROFILE", "quick"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "passed": sum(o.passed for o in outcomes),
        "notebooks": [o.as_dict() for o in outcomes],
    }
    write_atomic(BUILD / "report.json", (json.dumps(about, indent=1) + "\n").encode())
    write_atomic(BUILD / "report.html", html(about, outcomes).encode())

    from rich.console import Console
    from rich.table import Table

    table = Table("notebook", "verdict", "seconds", "checks", "points", title="make run")
    for o in outcomes:
        points = f"{sum(o.points.values()):g}" if o.points else "–"
        table.add_row(
            o.notebook, "passed" if o.passed else "FAILED", f"{o.seconds:.1f}", f"{o.checks}/{o.expected}", points
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for o in outcomes:
        for cell, message in o.failures[:1]:
            console.print(f"{o.notebook}, cell {cell or '–'}:\n{message}", markup=False, highlight=False)
    print(f"{about['passed']} of {len(outcomes)} notebooks passed; report: build/run/report.html")


STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left}
pre{background:#f4f4f4;padding:1rem;overflow:auto}.no{color:#a00000;font-weight:bold}"""


def html(about: dict, outcomes: list[Outcome]) -> str:
    """One page, nothing outside it: the table, and the first failure of each notebook with its traceback."""
    rows, details = [], []
    for o in outcomes:
        verdict = "passed" if o.passed else '<span class="no">FAILED</span>'
        points = ", ".join(f"{part}: {value:g}" for part, value in o.points.items())
        total = f"{sum(o.points.values()):g} ({escape(points)})" if o.points else "–"
        cells = (
            escape(o.notebook),
            verdict,
            f"{o.seconds:.1f}",
            f"{o.executed}/{o.cells}",
            f"{o.checks} of {o.expected}",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, total)) + "</tr>")
        if o.failures:
            cell, message = o.failures[0]
            more = f"<p>and {len(o.failures) - 1} more</p>" if len(o.failures) > 1 else ""
            heading = f"<h2>{escape(o.notebook)}, cell {escape(cell or '–')}</h2>"
            details.append(f"{heading}<pre>{escape(message)}</pre>{more}")
    names = ("notebook", "verdict", "seconds", "cells run", "checks passed", "points")
    head = "".join(f"<th>{name}</th>" for name in names)
    facts = [f"{about['passed']} of {len(outcomes)} passed", f"profile {about['profile']}"]
    facts += [f"Python {about['python']}", f"torch {about['torch']}", about["date"]]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Execution report</title>'
        f"<style>{STYLE}</style><h1>Execution report</h1><p>{' · '.join(facts)}</p>"
        f"<table><tr>{head}</tr>{''.join(rows)}</table>{''.join(details)}</html>\n"
    )


def main(arguments: list[str]) -> int:
    """0 only if every notebook passed."""
    if arguments[:1] == ["--worker"]:
        path, target, result, limit = arguments[1:]
        worker(Path(path), Path(target), Path(result), float(limit) or None)
        return 0
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks, all by default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cell-limit", type=float, help="seconds a cell may take (quick: 300; full: no limit)")
    options = parser.parse_args(arguments)
    limit = options.cell_limit or (None if os.environ.get("DGM_PROFILE") == "full" else 300)
    try:
        paths = named(options.names)
    except ValueError as error:
        parser.error(str(error))
    if not paths:
        parser.error("there is no notebook below notebooks/")
    try:
        return int(not all(o.passed for o in run(paths, options.jobs, limit)))
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept: start again to go on")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
