"""Mutation testing of the notebooks' checks: `python -m course.mutate [names] [--kind hand|generated] [--share K/N]`.

A notebook's code runs once in this process; before each solution cell a child is forked for every wrong version of
that cell, and runs on from there with the wrong cell. The version is killed when a check (or anything else) fails.
"""

import argparse
import ast
import linecache
import os
import pickle
import select
import signal
import sys
import time
import tomllib
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from course.notebooks import ROOT, cells_of, name_of, named
from course.operators import Mutant, generate

WANTED = 0.95  # share of the generated mutants that must be killed, over all notebooks


class MutationError(RuntimeError):
    """A mutant file that does not fit its notebook, or a notebook that fails unmutated."""


@dataclass
class Result:
    """Verdicts of one notebook: {key: "check" | "error" | "timeout" | "survived"} for both kinds."""

    notebook: str
    hand: dict[str, str] = field(default_factory=dict)
    generated: dict[str, str] = field(default_factory=dict)
    equivalent: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @staticmethod
    def killed(verdicts: dict[str, str]) -> int:
        """How many did not survive."""
        return sum(verdict != "survived" for verdict in verdicts.values())


def mutant_file(notebook: Path) -> Path:
    """Where the hand-written mutants of a notebook stand."""
    return ROOT / "tests" / "mutants" / f"{name_of(notebook).replace('/', '__')}.toml"


def mutants(notebook: Path, file: Path | None = None) -> tuple[list[Mutant], list[Mutant], dict[str, str]]:
    """Hand-written mutants, generated ones, and the reasons of those listed as equivalent (which are left out).

    Raises MutationError where an entry does not fit the notebook.
    """
    file = file or mutant_file(notebook)
    listed = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    sources = {c["id"]: c["source"] for c in cells_of(notebook) if c["mutable"]}
    hand = []
    for entry in listed.get("mutant", []):
        source = sources.get(entry["cell"])
        if source is None:
            raise MutationError(
                f"{file.name}: {entry['name']!r} names {entry['cell']!r}; solution cells: {list(sources)}"
            )
        if source.count(entry["old"]) != 1:
            raise MutationError(
                f"{file.name}: {entry['name']!r}: {entry['old']!r} occurs {source.count(entry['old'])} times "
                f"in cell {entry['cell']!r}, wanted once"
            )
        wrong = source.replace(entry["old"], entry["new"])
        hand.append(Mutant(entry["name"], entry["cell"], wrong, 0, entry["old"], entry["new"]))
    generated = [mutant for cell, source in sources.items() for mutant in generate(cell, source)]
    equivalent = {entry["key"]: entry["why"] for entry in listed.get("equivalent", [])}
    unknown = equivalent.keys() - {mutant.key for mutant in generated}
    if unknown:
        raise MutationError(f"{file.name}: no generated mutant has the key {sorted(unknown)}")
    return hand, [mutant for mutant in generated if mutant.key not in equivalent], equivalent


def run(
    notebook: Path,
    kind: str = "all",
    share: tuple[int, int] = (0, 1),
    jobs: int = 2,
    file: Path | None = None,
) -> Result:
    """Run the mutants of a notebook, `kind` "hand", "generated" or "all"; of the generated every N-th from the K-th.

    Raises MutationError where the notebook fails without any mutation.
    """
    hand, generated, equivalent = mutants(notebook, file)
    chosen = [("hand", m) for m in hand if kind != "generated"]
    chosen += [("generated", m) for m in generated[share[0] :: share[1]] if kind != "hand"]
    result = Result(name_of(notebook), equivalent=equivalent)
    result.lines = {m.key: f"{m.before}  →  {m.after}" for _, m in chosen}
    began = time.perf_counter()
    # the work is done in a child of its own, so that this process keeps its modules, seeds and figures
    for kind_of, key, verdict in _stream(lambda put: _serve(notebook, chosen, jobs, put)):
        if kind_of == "failed":
            raise MutationError(f"{result.notebook} fails without any mutation: {verdict}")
        (result.hand if kind_of == "hand" else result.generated)[key] = verdict
    if len(result.hand) + len(result.generated) != len(chosen):
        raise MutationError(f"{result.notebook}: the process that runs the mutants died")
    result.seconds = time.perf_counter() - began
    return result


def _stream(work: object) -> Iterator[tuple[str, str, str]]:
    """Run `work(put)` in a forked child and yield what it puts."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            work(lambda *item: (pickle.dump(item, pipe), pipe.flush()))  # type: ignore[operator]
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        while True:
            try:
                yield pickle.load(pipe)  # our own child's, through our own pipe
            except EOFError:
                break
    os.waitpid(child, 0)


def _serve(notebook: Path, chosen: list[tuple[str, Mutant]], jobs: int, put: object) -> None:
    cells = cells_of(notebook)
    with _as_a_kernel(notebook) as namespace:
        waiting: list = []
        for position, cell in enumerate(cells):
            for kind, mutant in chosen:
                if mutant.cell == cell["id"]:
                    sources = [mutant.source, *(c["source"] for c in cells[position + 1 :])]
                    waiting.append((kind, mutant.key, _fork(sources, namespace)))
                    while len(waiting) >= jobs:
                        _collect(waiting, put)
            try:
                _execute(cell["source"], f"{name_of(notebook)}:{cell['id']}", namespace)
            except BaseException as error:
                put("failed", cell["id"], f"cell {cell['id']}: {type(error).__name__}: {error}")  # type: ignore[operator]
                break
        while waiting:
            _collect(waiting, put)


def _fork(sources: list[str], namespace: dict) -> tuple[int, int, float]:
    """A child that runs the sources and writes one word; its process, pipe and deadline."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader, time.monotonic() + LIMIT
    os.close(reader)
    verdict = b"survived"
    try:
        for number, source in enumerate(sources):
            _execute(source, f"mutant:{number}", namespace)
    except BaseException as error:
        verdict = b"check" if type(error).__name__ == "CheckError" else b"error"
    os.write(writer, verdict)
    os._exit(0)


LIMIT = 120.0  # seconds for what is left of a notebook


def _collect(waiting: list, put: object) -> None:
    """Wait for the first child that answers, or runs out of time."""
    pipes = [entry[2][1] for entry in waiting]
    left = max(0.0, min(entry[2][2] for entry in waiting) - time.monotonic())
    ready, _, _ = select.select(pipes, [], [], left)
    for entry in list(waiting):
        kind, key, (child, pipe, deadline) = entry
        if pipe in ready:
            verdict = os.read(pipe, 100).decode() or "error"  # nothing written: it crashed
        elif time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            verdict = "timeout"
        else:
            continue
        os.close(pipe)
        os.waitpid(child, 0)
        waiting.remove(entry)
        put(kind, key, verdict)  # type: ignore[operator]


def _execute(source: str, name: str, namespace: dict) -> None:
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(ast.parse(source), name, "exec"), namespace)


@contextmanager
def _as_a_kernel(notebook: Path) -> Iterator[dict]:
    """What a notebook's cells expect around them: `__main__`, its folder, no window, no front-end, one thread."""
    os.environ |= {"MPLBACKEND": "Agg", "DGM_LIVE": "0", "DGM_PROFILE": "quick", "OMP_NUM_THREADS": "1"}
    os.chdir(notebook.parent)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    yield vars(main)


def main(arguments: list[str]) -> int:
    """Print a table and the survivors; 0 when no hand-written mutant survives and enough generated ones are killed."""
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks, all by default")
    parser.add_argument("--kind", choices=("all", "hand", "generated"), default="all")
    parser.add_argument("--share", default="0/1", help="K/N: every N-th generated mutant, from the K-th")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    share = tuple(int(n) for n in options.share.split("/"))
    results = []
    print(f"{'notebook':50}{'hand-written':>14}{'generated':>14}{'equivalent':>12}{'seconds':>9}")
    for notebook in named(options.names):
        result = run(notebook, options.kind, share, options.jobs)
        results.append(result)
        cells = (f"{Result.killed(v)}/{len(v)}" for v in (result.hand, result.generated))
        print(
            f"{result.notebook:50}"
            + "".join(f"{c:>14}" for c in cells)
            + f"{len(result.equivalent):>12}{result.seconds:>9.0f}",
            flush=True,
        )
        for verdicts in (result.hand, result.generated):
            for key, verdict in verdicts.items():
                if verdict == "survived":
                    print(f"    survived {key}: {result.lines[key]}", flush=True)
    total = sum(len(r.generated) for r in results)
    killed = sum(Result.killed(r.generated) for r in results)
    survivors = sum(len(r.hand) - Result.killed(r.hand) for r in results)
    print(
        f"hand-written survivors {survivors}; generated killed {killed}/{total}"
        + (f" = {killed / total:.1%}" if total else "")
    )
    return int(survivors > 0 or killed < WANTED * total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
