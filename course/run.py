"""Execute the notebooks and say which of them hold: `python -m course.run [names…]`, which is `make run`.

Each notebook runs in a clean kernel of this environment, several at a time. A run that was interrupted
continues: notebooks that had passed, and have not changed since, are not run again.
"""

import argparse
import asyncio
import hashlib
import json
import os
import platform
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

from course import report
from course.gate import execute
from course.verdict import Failure, Result

PROJECT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "full")
LIMITS = {"quick": 300.0, "full": 0.0}  # s per cell; 0: none


def find(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """{"<hw>/<q>": path} of the notebooks named, or of all below `folder`.

    A name may begin with notebooks/ and end in .ipynb. Raises ValueError for an unknown name, or no notebook.
    """
    there = {f"{p.parent.name}/{p.stem}": p.resolve() for p in sorted(folder.glob("[!.]*/[!.]*.ipynb"))}
    if not there:
        raise ValueError(f"no notebook <hw>/<q>.ipynb below {folder}")
    wanted = [re.sub(r"^(\./)?(notebooks/)?", "", name).removesuffix(".ipynb") for name in names]
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise ValueError(f"unknown notebook {', '.join(unknown)}; there are:\n  " + "\n  ".join(there))
    return {name: there[name] for name in wanted} if wanted else there


def environment(profile: str) -> dict[str, str]:
    """The kernels' environment: profile, project importable, one thread each unless set, no live sliders."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    ours = {"DGM_PROFILE": profile, "PYTHONPATH": path}
    return {"OMP_NUM_THREADS": "1", "DGM_LIVE": "0"} | os.environ | ours


def key(source: Path, profile: str) -> str:
    """SHA-256 of what decides a result: the notebook, the helpers, the profile, the data folder's name."""
    digest = hashlib.sha256()
    for path in [source, *sorted((PROJECT / "helpers").glob("*.py"))]:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    digest.update(f"{profile}\n{os.environ.get('DGM_DATA', '')}".encode())
    return digest.hexdigest()


def recall(state: Path, wanted: str) -> Result | None:
    """The result that an interrupted run left in `state`, if it passed and its key is `wanted`."""
    try:
        stored = json.loads(state.read_text(encoding="utf-8"))
        result = Result(**stored["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if stored["key"] == wanted and result.ok else None


def tidy(text: str) -> str:
    """`text` without this machine's folders and without addresses."""
    home = str(Path.home())
    folders = {os.environ.get("DGM_DATA", ""): "$DGM_DATA", str(PROJECT): ".", sys.prefix: "<environment>"}
    folders |= {sys.base_prefix: "<python>", home: "~"}
    for folder, name in sorted(folders.items(), key=lambda item: -len(item[0])):
        if len(folder) > 1:
            short = folder.replace(home, "~", 1) if folder.startswith(home + os.sep) else folder
            text = re.sub(f"({re.escape(folder)}|{re.escape(short)})(?![\\w-])", lambda _, n=name: n, text)
    text = re.sub(r"(?<![\w.~>$/-])/(?:[\w.+@-]+/)+(?=[\w.+@-])", "…/", text)
    return re.sub(r"\b\w+://", "", text)


def tidied(result: Result) -> Result:
    """The result as it may be published."""
    failures = [Failure(f.cell, f.cell_id, tidy(f.message), tidy(f.traceback)) for f in result.failures]
    return replace(result, failures=failures)


async def run_all(
    notebooks: dict[str, Path],
    build: Path,
    profile: str,
    limit: float | None,
    jobs: int,
    display: report.Display,
) -> list[Result]:
    """Run `jobs` notebooks at a time; each result is kept in build/state as soon as it is there."""
    turns, kernel = asyncio.Semaphore(jobs), environment(profile)

    async def one(name: str, source: Path) -> Result:
        async with turns:
            state, target = (
                build / "state" / f"{name.replace('/', '__')}.json",
                build / "notebooks" / f"{name}.ipynb",
            )
            now = key(source, profile)
            result = recall(state, now) if target.exists() else None
            if result is not None:
                display.done(result, kept=True)
                return result
            result = await execute(
                name,
                source,
                target,
                kernel,
                limit,
                on_start=lambda cells: display.start(name, cells),
                on_cell=lambda k: display.cell(name, k),
            )
            result = tidied(result)
            stored = {k: v for k, v in report.as_dict(result).items() if k in Result.__dataclass_fields__}
            report.write(state, json.dumps({"key": now, "result": stored}))
            display.done(result)
            return result

    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*item)) for item in notebooks.items()]
    return [task.result() for task in tasks]


def about(profile: str, seconds: float) -> dict[str, str]:
    """What a reader needs to compare two reports."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    when = datetime.now(UTC).isoformat(timespec="seconds")
    python = platform.python_version()
    return {"profile": profile, "python": python, "torch": torch, "date": when, "seconds": f"{seconds:.1f}"}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m course.run", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="<hw>/<q>; all notebooks when none is named")
    parser.add_argument("--cell-limit", type=float, help="seconds per cell, 0: none (300 in quick, none in full)")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (2)")
    parser.add_argument("--notebooks", type=Path, default=PROJECT / "notebooks", help="folder of the <hw> folders")
    parser.add_argument("--build", type=Path, default=PROJECT / "build" / "run", help="folder of the report")
    options = parser.parse_args(argv)
    options.profile = os.environ.get("DGM_PROFILE", "quick")
    if options.profile not in PROFILES:
        parser.error(f"DGM_PROFILE is {options.profile!r}; wanted one of {PROFILES}")
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}; wanted at least 1")
    try:
        options.found = find(options.notebooks, options.names)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """0: all passed, 1: not all, 2: wrong arguments, 130: interrupted."""
    options = arguments(argv)
    limit = LIMITS[options.profile] if options.cell_limit is None else options.cell_limit
    console, begin = report.console(), monotonic()
    work = options.found, options.build, options.profile, limit if limit > 0 else None, options.jobs
    try:
        with report.Display(console) as display:
            results = asyncio.run(run_all(*work, display))
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print("interrupted: what passed is kept; run again to continue")
        return 130
    facts = about(options.profile, monotonic() - begin)
    report.save(options.build, facts, results)
    for name in options.found:  # complete: the next run begins afresh
        (options.build / "state" / f"{name.replace('/', '__')}.json").unlink(missing_ok=True)
    report.close(console, results)
    failed = sum(not r.ok for r in results)
    console.print(f"{len(results) - failed} of {len(results)} passed, report in {tidy(str(options.build))}/report.html")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
