"""Executes a notebook's code cells in this process and forks it before each mutated cell (see course.mutate).

`serve` is the entry point of a process of its own: it replaces `__main__`, and forks, which a test runner must not.
"""

import json
import linecache
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

Tell = Callable[..., object]  # called with strings and numbers: passes them to the parent
MEMORY = 8 << 30  # bytes of data that one mutant may hold; a mutant that wants more is killed, not the machine


def serve() -> None:
    """Read a job from stdin (cells, mutants, jobs, least, answer), run it, write outcomes to the file `answer`."""
    job = json.load(sys.stdin)
    namespace = _fresh_main()
    _harmless_figures()
    cells = job["cells"]
    times: list[float] = []
    fault = ""

    def tell(way: str, detail: float | str) -> None:
        nonlocal fault
        if way == "cell":
            times.append(float(detail))
        elif way != "survived":
            fault = f"the notebook itself does not pass: {detail}"

    # one pass proves that the notebook passes, takes the cells' times and leaves a snapshot before each mutated cell
    snapshots: list[tuple[int, _Snapshot]] = []
    for i, cell in enumerate(cells):
        if queue := [m for m in job["mutants"] if m["cell"] == cell["id"]]:
            snapshots.append((i, _Snapshot(queue, cells[i:], namespace, job["jobs"])))
        _execute([cell], namespace, tell)
        if fault:
            break
    outcomes: dict[str, tuple[str, str]] = {}
    for i, snapshot in snapshots:
        if fault:
            snapshot.child.end()
            continue
        outcomes |= snapshot.run(max(job["least"], 5 * sum(times[i:])))
        if not snapshot.keys <= set(outcomes):
            fault = f"the process that ran the mutants of cell {cells[i]['id']} died"
    Path(job["answer"]).write_text(json.dumps({"fault": fault, "outcomes": outcomes}), encoding="utf-8")


def _fresh_main() -> dict[str, object]:
    """A new `__main__`, so that pickling, dataclasses and inspect find what the cells define."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    sys.path.insert(0, "")
    return module.__dict__


def _harmless_figures() -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return
    plt.show = lambda *_, **__: plt.close("all")


def _run_cell(name: str, source: str, namespace: dict[str, object]) -> None:
    file = f"<{name}>"
    linecache.cache[file] = len(source), None, source.splitlines(True), file
    exec(compile(source, file, "exec"), namespace)


def _execute(cells: list[dict], namespace: dict[str, object], tell: Tell) -> None:
    for cell in cells:
        begin = time.monotonic()
        try:
            _run_cell(cell["id"], cell["source"], namespace)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too end a notebook early
            way = "check" if type(error).__name__ == "CheckError" else "error"
            tell(way, f"cell {cell['id']}: {type(error).__name__}: {str(error)[:300]}")
            return
        tell("cell", time.monotonic() - begin)
    tell("survived", "")


class _Child:
    """A forked process that runs `work(tell)`; what it tells comes back line by line through a pipe."""

    def __init__(self, work: Callable[[Tell], None], limit: float) -> None:
        self.deadline = time.monotonic() + limit
        self.told = b""
        self.read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                os.close(self.read)
                nowhere = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(nowhere, descriptor)
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
                work(lambda *part: os.write(write, (json.dumps(part) + "\n").encode()))
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        os.setpgid(self.pid, self.pid)  # here too: `end` may come before the child gets to it

    def lines(self) -> list[list]:
        """What was told up to now."""
        return [json.loads(line) for line in self.told.decode().splitlines()]

    def parts(self) -> list[list]:
        """All that was told once the process has ended (see `_wait`), and how it ended."""
        late = time.monotonic() >= self.deadline
        parts = self.lines()
        if not parts or parts[-1][0] == "cell":
            parts.append(["timeout", "over its time limit"] if late else ["error", "the process died"])
        return parts

    def end(self) -> None:
        """Kill what is left of the process group and reap it."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        os.close(self.read)
        os.waitpid(self.pid, 0)


def _wait(running: list[_Child]) -> _Child:
    """Collect what the processes tell until one of them has ended or is over its time; that one, killed and reaped."""
    while True:
        left = min(child.deadline for child in running) - time.monotonic()
        ready = select.select([child.read for child in running], [], [], min(max(left, 0), 3600))[0]
        for child in running:
            more = os.read(child.read, 1 << 16) if child.read in ready else None
            child.told += more or b""
            if more == b"" or time.monotonic() >= child.deadline:
                child.end()
                return child


class _Snapshot:
    """A fork of this process that waits before a cell; `run` lets it run the mutants of that cell."""

    def __init__(self, queue: list[dict], cells: list[dict], namespace: dict[str, object], jobs: int) -> None:
        self.keys = {mutant["key"] for mutant in queue}
        parent = os.getpid()
        read, self.write = os.pipe()

        def work(tell: Tell) -> None:
            while not select.select([read], [], [], 5)[0]:
                if os.getppid() != parent:
                    return
            limit = float(os.read(read, 64))
            for key, fate in _mutants_of_cell(queue, cells, namespace, limit, jobs).items():
                tell(key, fate)

        self.child = _Child(work, float("inf"))
        os.close(read)

    def run(self, limit: float) -> dict[str, tuple[str, str]]:
        """What became of each mutant that may take `limit` seconds; lacks those that were lost with the process."""
        os.write(self.write, str(limit).encode())
        os.close(self.write)
        _wait([self.child])
        return {key: (way, detail) for key, (way, detail) in self.child.lines()}


def _mutants_of_cell(
    queue: list[dict],
    cells: list[dict],
    namespace: dict[str, object],
    limit: float,
    jobs: int,
) -> dict[str, tuple[str, str]]:
    """Run the mutants of the first of `cells`, `jobs` at a time, each followed by the rest of the notebook."""
    outcomes: dict[str, tuple[str, str]] = {}
    running: dict[_Child, str] = {}
    while queue or running:
        while queue and len(running) < jobs:
            mutant = queue.pop(0)
            todo = [cells[0] | {"source": mutant["source"]}, *cells[1:]]
            child = _Child(lambda tell, todo=todo: _execute(todo, namespace, tell), limit)
            running[child] = mutant["key"]
        ended = _wait(list(running))
        outcomes[running.pop(ended)] = ended.parts()[-1]
    return outcomes
