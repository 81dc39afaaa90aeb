"""Mutation testing of notebooks: each solution cell is made wrong in many ways, and the notebook's checks must notice.

Hand-written mutants stand in tests/mutants/<assignment>__<question>.toml, generated ones come from course.operators.
One process executes the notebook's code cells once, in order, and forks before each solution cell; that snapshot forks
once per mutant, so that a mutant costs only the cells from there to the check that kills it.
"""

import argparse
import ast
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass, field
from difflib import ndiff
from os import environ
from pathlib import Path

from course.notebooks import ROOT, all_notebooks, cells_of, name_of, named
from course.operators import candidates

REACH = 0.95  # share of the generated mutants, over all notebooks, that must be killed
QUIET = {  # no accelerator and one thread: a fork inherits neither
    "DGM_LIVE": "0",
    "DGM_PROFILE": "quick",
    "DGM_DEVICE": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
}


class MutationError(ValueError):
    """The mutants or the notebook are at fault, not the checks."""


@dataclass(frozen=True)
class Mutant:
    """One wrong version of one solution cell. `why` is set where it is said to be equivalent."""

    key: str
    kind: str  # "hand" or "generated"
    cell: str
    source: str
    before: str
    after: str
    why: str = ""


@dataclass
class Result:
    """What became of the mutants of one notebook: outcomes by key are check, error, timeout or survived."""

    notebook: str
    mutants: list[Mutant]
    outcomes: dict[str, str]
    details: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, kind: str) -> list[Mutant]:
        """The mutants of a kind that count: run, and not equivalent."""
        return [m for m in self.mutants if m.kind == kind and not m.why and m.key in self.outcomes]

    def survivors(self, kind: str) -> list[Mutant]:
        """The mutants of a kind that no check noticed."""
        return [m for m in self.of(kind) if self.outcomes[m.key] == "survived"]

    @property
    def equivalents(self) -> list[Mutant]:
        """The mutants that are said, with a reason, to change nothing."""
        return [m for m in self.mutants if m.why]

    def text(self) -> str:
        """The report: totals, then every survivor and every equivalent mutant."""
        lines = [f"{self.notebook}: {_share(self, 'hand')}, {_share(self, 'generated')}, {self.seconds:.0f} s"]
        ways = Counter(o for k, o in self.outcomes.items() if o != "survived")
        lines += ["  killed by " + ", ".join(f"{way} {n}" for way, n in sorted(ways.items()))] if ways else []
        for m in self.survivors("hand") + self.survivors("generated"):
            lines += [f"  survived {m.key}\n    before {m.before}\n    after  {m.after}"]
        lines += [f"  equivalent {m.key}: {m.why}" for m in self.equivalents]
        return "\n".join(lines)


def _share(result: Result, kind: str) -> str:
    total = len(result.of(kind))
    killed = total - len(result.survivors(kind))
    percent = f" ({100 * killed / total:.0f} %)" if total else ""
    return f"{kind} {killed}/{total}{percent}"


def mutant_file(notebook: Path) -> Path:
    """Where the hand-written mutants of a notebook stand."""
    return ROOT / "tests" / "mutants" / f"{notebook.parent.name}__{notebook.stem}.toml"


def mutants(notebook: Path, file: Path | None = None) -> list[Mutant]:
    """All mutants of a notebook, hand-written (from `file`, default `mutant_file`) first.

    Raises MutationError for a mutant of a cell that is not a solution cell, for an `old` that does not occur exactly
    once, and for an equivalent that names no generated mutant.
    """
    file = file or mutant_file(notebook)
    written = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if unknown := set(written) - {"mutant", "equivalent"}:
        raise MutationError(f"{file.name}: unknown tables {sorted(unknown)}; wanted [[mutant]] and [[equivalent]]")
    solutions = {c["id"]: c["source"] for c in cells_of(notebook) if c["mutable"]}
    found = [_hand(entry, solutions, file) for entry in written.get("mutant", [])]
    why = {e["key"]: e["why"] for e in written.get("equivalent", [])}
    for cell, source in solutions.items():
        count: Counter[tuple[int, str]] = Counter()
        for line, operator, mutated in candidates(source):
            key = f"{cell}:L{line}:{operator}:{count[line, operator]}"
            count[line, operator] += 1
            found.append(Mutant(key, "generated", cell, mutated, *_change(source, mutated), why.get(key, "")))
    keys = Counter(m.key for m in found)
    if twice := [key for key, n in keys.items() if n > 1]:
        raise MutationError(f"{file.name}: keys occur twice: {twice}; give each mutant its own name")
    if missing := set(why) - set(keys):
        raise MutationError(f"{file.name}: no generated mutant has the key {sorted(missing)}; see --list")
    return found


def _hand(entry: dict[str, str], solutions: dict[str, str], file: Path) -> Mutant:
    where = f"{file.name}, mutant {entry.get('name')!r}"
    if absent := {"name", "cell", "old", "new"} - set(entry):
        raise MutationError(f"{where}: lacks {sorted(absent)}")
    cell, old = entry["cell"], entry["old"]
    if cell not in solutions:
        raise MutationError(f"{where}: {cell!r} is no solution cell that runs; wanted one of {sorted(solutions)}")
    source = solutions[cell]
    if source.count(old) != 1:
        raise MutationError(f"{where}: old occurs {source.count(old)} times in cell {cell!r}, wanted once: {old!r}")
    mutated = source.replace(old, entry["new"])
    if mutated == source:
        raise MutationError(f"{where}: old and new are the same")
    return Mutant(f"{cell}:{entry['name']}", "hand", cell, mutated, *_change(source, mutated, plain=True))


def _change(source: str, mutated: str, plain: bool = False) -> tuple[str, str]:
    """The lines that differ, before and after."""
    old = source if plain else ast.unparse(ast.parse(source))
    lines = [d for d in ndiff(old.splitlines(), mutated.splitlines()) if d[0] in "+-"]
    return tuple(" ⏎ ".join(d[2:].strip() for d in lines if d[0] == sign) for sign in "-+")  # type: ignore[return-value]


def run(
    notebook: Path,
    file: Path | None = None,
    only: str = "",
    subset: tuple[int, int] = (0, 1),
    jobs: int = 2,
    least: float = 10.0,
) -> Result:
    """Run the mutants of a notebook in a process of its own and say which survive.

    `only` is "hand", "generated" or "" for both; `subset` (k, n) takes every n-th generated mutant from the k-th on.
    A mutant may take max(`least` seconds, 5 times what the notebook itself takes from there).
    Raises MutationError when the notebook itself does not pass, or an equivalent mutant is killed (not by the clock).
    """
    begin = time.monotonic()
    every = mutants(notebook, file)
    generated = [m for m in every if m.kind == "generated"][subset[0] % subset[1] :: subset[1]]
    chosen = [m for m in [*(m for m in every if m.kind == "hand"), *generated] if only in ("", m.kind)]
    name = name_of(notebook)
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        job = {"cells": cells_of(notebook), "jobs": jobs, "least": least, "answer": str(answer)}
        job["mutants"] = [{"key": m.key, "cell": m.cell, "source": m.source} for m in chosen]
        path = {"PYTHONPATH": ":".join([str(ROOT), *filter(None, [environ.get("PYTHONPATH")])])}
        done = subprocess.run(
            [sys.executable, "-c", "from course.forks import serve; serve()"],
            input=json.dumps(job),
            text=True,
            cwd=notebook.parent,
            env=environ | QUIET | path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode or not answer.exists():
            raise MutationError(f"{name}: the runner ended with {done.returncode}\n{done.stderr[-2000:]}")
        reply = json.loads(answer.read_text(encoding="utf-8"))
    if reply["fault"]:
        raise MutationError(f"{name}: {reply['fault']}")
    outcomes = {key: way for key, (way, _) in reply["outcomes"].items()}
    details = {key: detail for key, (_, detail) in reply["outcomes"].items()}
    for m in chosen:
        if m.why and outcomes[m.key] not in ("survived", "timeout"):  # late on a loaded machine says nothing
            raise MutationError(
                f"{name}: {m.key} is killed ({details[m.key]}), so it is not equivalent: drop the entry"
            )
    return Result(name, every, outcomes, details, time.monotonic() - begin)


def notebooks(names: list[str]) -> list[Path]:
    """The notebooks of the names or files given, all of the course when none is. Raises ValueError."""
    found = [[Path(name).resolve()] if Path(name).is_file() else named([name]) for name in names]
    return [path for paths in found for path in paths] if names else all_notebooks()


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: no hand-written survivor, 95 % of the generated killed. 1: not so. 2: mutants at fault."""
    parser = argparse.ArgumentParser(prog="python -m course.mutate", description="Mutation testing of notebooks.")
    parser.add_argument("names", nargs="*", help="assignment/question; default: all")
    parser.add_argument("--only", choices=["hand", "generated"], default="")
    parser.add_argument("--subset", default="0/1", metavar="K/N", help="every N-th generated mutant from the K-th on")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    first, step = (int(x) for x in options.subset.split("/"))
    results = []
    try:
        for notebook in notebooks(options.names):
            if options.list:
                print("\n".join(f"{m.key}\n  {m.before}\n  {m.after}" for m in mutants(notebook)))
                continue
            results.append(run(notebook, None, options.only, (first, step), options.jobs))
            print(results[-1].text(), flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        return 0
    if not results:
        print("no notebooks found", file=sys.stderr)
        return 2
    total = Result("overall", [], {}, seconds=sum(r.seconds for r in results))
    for r in results:
        total.mutants += [Mutant(**asdict(m) | {"key": f"{r.notebook}:{m.key}"}) for m in r.mutants if not m.why]
        total.outcomes |= {f"{r.notebook}:{key}": way for key, way in r.outcomes.items()}
    print(f"overall: {_share(total, 'hand')}, {_share(total, 'generated')}, {total.seconds:.0f} s")
    if options.json:
        options.json.write_text(
            json.dumps([asdict(r) for r in results], indent=1, ensure_ascii=False), encoding="utf-8"
        )
    generated = total.of("generated")
    enough = len(total.survivors("generated")) <= (1 - REACH) * len(generated)
    return 0 if enough and not total.survivors("hand") else 1


if __name__ == "__main__":
    sys.exit(main())
