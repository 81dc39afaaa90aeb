"""What every notebook of the course must hold, checked from its file without running it: `faults(path)`.

The list follows the traps of the runners (an unknown magic passes nbval, widget state leaks into the release, …).
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from course.mutate import notebooks
from course.notebooks import NOTEBOOKS, name_of

POINTS = NOTEBOOKS / "points.toml"
QUESTIONS = 29
SIZE = 1_000_000  # bytes
KINDS = {  # (grade, solution, locked) of nbgrader's metadata
    (False, False, True): "locked",
    (False, True, False): "solution",
    (True, True, False): "manual",
    (True, False, True): "test",
}
SETUP = (
    "import importlib.util",
    "import os",
    "",
    'if importlib.util.find_spec("helpers") is None:',  # a comment may follow
    "    os.system(f\"pip install --quiet --no-deps {os.environ['DGM_REPOSITORY']}\")",
)
REFUSED = {"raises-exception", "nbval-raises-exception", "nbval-skip", "skip-execution"}
SHELL = re.compile(r"os\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*)|subprocess(\..*)?|get_ipython(\(\).*)?")
WIDGET = "application/vnd.jupyter.widget"

Cell = dict[str, Any]


def faults(path: Path, points: dict[str, Any] | None = None) -> list[str]:
    """Everything wrong with a notebook, in words; empty when all is well. `points` stands in for points.toml.

    Raises ValueError when the file is not JSON.
    """
    book = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell | {"source": "".join(cell["source"])} for cell in book["cells"]]
    table = tomllib.loads(POINTS.read_text(encoding="utf-8")) if points is None else points
    question = table.get(path.parent.name, {}).get(path.stem)
    found = [*_metadata(cells), *_order(cells), *_sources(cells), *_outputs(book, cells), *_captions(cells)]
    if path.stat().st_size >= SIZE:
        found.append(f"file: {path.stat().st_size / 1e6:.2f} MB, wanted less than {SIZE / 1e6:g} MB")
    if question is None:
        found.append(f"points.toml: no entry [{path.parent.name}.{path.stem}]")
    else:
        found += [*_points(cells, question["parts"]), *_languages(cells, question["persian"])]
    return found


def points_faults(table: dict[str, Any], questions: int = QUESTIONS) -> list[str]:
    """Everything wrong with the table of points: parts that do not sum to the total, missing questions or letters."""
    found = []
    every = {f"{hw}.{q}": entry for hw, group in table.items() for q, entry in group.items()}
    if len(every) != questions:
        found.append(f"points.toml: {len(every)} questions, wanted {questions}")
    for name, entry in every.items():
        if missing := {"total", "source", "parts", "parts_source", "persian"} - set(entry):
            found.append(f"{name}: lacks {sorted(missing)}")
            continue
        parts, extra = entry["parts"], entry.get("bonus_parts", [])
        if set(entry["persian"]) != set(parts) or not set(extra) <= set(parts):
            found.append(f"{name}: persian and bonus_parts do not name the parts {sorted(parts)}")
        elif (total := sum(p for k, p in parts.items() if k not in extra)) != entry["total"]:
            found.append(f"{name}: parts sum to {total}, total is {entry['total']}")
        for key in ("source", "parts_source"):
            if entry[key] not in ("sheet", "assigned"):
                found.append(f'{name}: {key} is {entry[key]!r}, wanted "sheet" or "assigned"')
    return found


def _name(cell: Cell) -> str:
    return f"cell {cell['metadata'].get('nbgrader', {}).get('grade_id') or cell.get('id')!r}"


def _kind(cell: Cell) -> str:
    grader = cell["metadata"].get("nbgrader", {})
    return KINDS.get(tuple(bool(grader.get(key)) for key in ("grade", "solution", "locked")), "")  # type: ignore[arg-type]


def _metadata(cells: list[Cell]) -> Iterator[str]:
    for key, values in (
        ("id", [cell.get("id") for cell in cells]),
        ("grade_id", [cell["metadata"].get("nbgrader", {}).get("grade_id") for cell in cells]),
    ):
        for value, times in Counter(values).items():
            if not value:
                yield f"{times} cells have no {key}"
            elif times > 1:
                yield f"{key} {value!r} occurs {times} times"
            elif not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
                yield f"{key} {value!r}: wanted letters, digits, _ and -"
    for cell in cells:
        grader, kind = cell["metadata"].get("nbgrader", {}), _kind(cell)
        if not kind:
            yield f"{_name(cell)}: nbgrader metadata is none of {sorted(KINDS.values())}"
        elif grader.get("schema_version") != 3:
            yield f"{_name(cell)}: schema_version {grader.get('schema_version')}, wanted 3"
        if kind in ("test", "manual") and not isinstance(grader.get("points"), int | float):
            yield f"{_name(cell)}: a {kind} cell without points"
        if kind in ("test", "solution") and cell["cell_type"] != "code":
            yield f"{_name(cell)}: a {kind} cell in Markdown; wanted manual"
        if kind == "manual" and cell["cell_type"] != "markdown":
            yield f"{_name(cell)}: a manual cell in code; wanted Markdown"
        for tag in sorted(REFUSED & set(cell["metadata"].get("tags", []))):
            yield f"{_name(cell)}: the tag {tag} hides failures"


def _order(cells: list[Cell]) -> Iterator[str]:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    if not code or len(cells) < 2:
        yield "no code cells"
        return
    if cells[0]["cell_type"] != "markdown" or _kind(cells[0]) != "locked":
        yield "the first cell is not a locked Markdown cell with the title and the question"
    if cells[1] is not code[0] or code[0].get("id") != "setup" or _kind(code[0]) != "locked":
        yield 'the second cell, the first of code, is not the locked cell "setup"'
    lines = code[0]["source"].splitlines()
    head = [line.split("  #")[0].rstrip() for line in lines[: len(SETUP)]]
    if head != list(SETUP):
        yield f"cell 'setup': its first {len(SETUP)} lines are not those of all notebooks (course.lint.SETUP)"
    if (number := sum(bool(line.strip()) for line in lines)) > 10:
        yield f"cell 'setup': {number} lines, wanted at most 10"
    if len(code) < 2 or code[1].get("id") != "settings" or _kind(code[1]) != "locked":
        yield 'the second code cell is not the locked cell "settings"'
    if not _reports(code[-1]["source"]) or _kind(code[-1]) != "locked":
        yield f"{_name(code[-1])}: the last code cell is not a locked checks.report(expected=…)"


def _reports(source: str) -> bool:
    """Whether the last statement is checks.report(expected=<positive integer>)."""
    try:
        last = ast.parse(source).body[-1]
    except (SyntaxError, IndexError):
        return False
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and len(last.value.keywords) == 1):
        return False
    value = last.value.keywords[0].value
    number = isinstance(value, ast.Constant) and type(value.value) is int and value.value > 0
    return ast.unparse(last.value.func) == "checks.report" and last.value.keywords[0].arg == "expected" and number


def _sources(cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        source = cell["source"]
        for mark in ("SOLUTION", "HIDDEN TESTS"):
            if source.count(f"BEGIN {mark}") != source.count(f"END {mark}"):
                yield f"{_name(cell)}: BEGIN {mark} and END {mark} do not match"
        if cell["cell_type"] != "code":
            continue
        if re.search(r"^\s*#\s*(NBVAL_SKIP|NBVAL_RAISES_EXCEPTION|PYTEST_VALIDATE_IGNORE)", source, re.M):
            yield f"{_name(cell)}: a marker that hides failures"
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            line = f"line {error.lineno}, {(error.text or '').strip()!r}"
            yield f"{_name(cell)}: {line}: a magic, a shell line or no Python"
            continue
        shells = [call for node in ast.walk(tree) for call in _calls(node) if SHELL.fullmatch(call)]
        allowed = ["os.system"] if cell.get("id") == "setup" else []
        if shells and shells != allowed:
            yield f"{_name(cell)}: {', '.join(shells)}: no shell and no magic outside the install of the set-up cell"


def _calls(node: ast.AST) -> list[str]:
    """The name called or imported by a node, as far as a shell can hide behind it."""
    if isinstance(node, ast.Call):
        return [ast.unparse(node.func)]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _outputs(book: dict[str, Any], cells: list[Cell]) -> Iterator[str]:
    if "widgets" in book["metadata"]:
        yield "widget state is stored: execute with store_widget_state=False"
    counts = [cell.get("execution_count") for cell in cells if cell["cell_type"] == "code"]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, wanted 1, 2, 3, …: restart, run all cells, store"
    for cell in cells:
        outputs = cell.get("outputs", [])
        marked = re.search(r"^\s*#\s*NBVAL_CHECK_OUTPUT", cell["source"], re.M) and cell["cell_type"] == "code"
        if (marked or "nbval-check-output" in cell["metadata"].get("tags", [])) and not outputs:
            yield f"{_name(cell)}: marked to compare its output, but none is stored"
        for output in outputs:
            if output["output_type"] == "error":
                yield f"{_name(cell)}: a stored error: {output.get('ename')}"
            if output.get("name") == "stderr":
                yield f"{_name(cell)}: output on stderr: {''.join(output['text'])[:80]!r}"
            if any(kind.startswith(WIDGET) for kind in output.get("data", {})):
                yield f"{_name(cell)}: a stored widget; its static twin is enough"


def _captions(cells: list[Cell]) -> Iterator[str]:
    for word in ("Figure", "Table"):
        numbers = [int(n) for cell in cells for n in _numbers(cell, word)]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"captions **{word} n.** are numbered {numbers}, wanted 1, 2, 3, …"
    figures = captions = 0
    for cell in reversed(cells):  # each cell with a figure needs a caption of its own further down
        captions += len(_numbers(cell, "Figure"))
        images = [o for o in cell.get("outputs", []) if any(k.startswith("image/") for k in o.get("data", {}))]
        figures += bool(images)
        if images and figures > captions:
            yield f"{_name(cell)}: a figure without a caption **Figure n.** below it"
    if not figures:
        yield "no figure is stored"


def _numbers(cell: Cell, word: str) -> list[str]:
    return re.findall(rf"\*\*{word} (\d+)\.\*\*", cell["source"]) if cell["cell_type"] == "markdown" else []


def _points(cells: list[Cell], parts: dict[str, float]) -> Iterator[str]:
    got: Counter[str] = Counter()
    for cell in cells:
        if _kind(cell) in ("test", "manual"):
            grader = cell["metadata"]["nbgrader"]
            got[str(grader.get("grade_id")).split("_")[0]] += grader.get("points") or 0
    for part in sorted({part for part in got if got[part]} | set(parts)):
        if abs(got[part] - parts.get(part, 0)) > 1e-9:
            yield f"part {part}: cells give {got[part]:g} points, points.toml {parts.get(part, 0):g}"


def _languages(cells: list[Cell], letters: dict[str, str]) -> Iterator[str]:
    text = cells[0]["source"] if cells else ""
    block = re.search(r"\n\n<div dir=\"rtl\"[^>]*>\n\n(.*?)\n\n</div>(\n\n|\s*$)", text, re.S)
    if not block:
        yield 'the first cell has no <div dir="rtl" lang="fa"> … </div> with blank lines around and inside'
        return
    persian, english = block[1], text[: block.start()] + text[block.end() :]
    if len(re.findall(r"[\u0600-\u06ff]{2,}", persian)) < 10:
        yield "the question is not restated in Persian"
    if len(re.findall(r"[A-Za-z]{3,}", english)) < 10:
        yield "the question is not restated in English"
    for part, letter in letters.items():
        if not re.search(rf"(?<!\w){re.escape(letter)}(?!\w)", persian):
            yield f"part {part}: its letter {letter} does not occur in the Persian block"


def main(arguments: list[str] | None = None) -> int:
    """Print the faults of the notebooks named (default: all) and of points.toml; exit status 1 when there are any."""
    parser = argparse.ArgumentParser(prog="python -m course.lint", description="Lint of notebooks.")
    parser.add_argument("names", nargs="*", help="assignment/question; default: all")
    try:
        paths = notebooks(parser.parse_args(arguments).names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    found = points_faults(tomllib.loads(POINTS.read_text(encoding="utf-8")))
    found += [f"{name_of(path)}: {fault}" for path in paths for fault in faults(path)]
    print("\n".join([*found, f"{len(paths)} notebooks, {len(found)} faults"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
