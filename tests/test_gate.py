"""The gate against everything that some notebook runner was seen to let pass, hide, or wait for."""

import asyncio
from pathlib import Path
from time import monotonic

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from course import gate, run
from course.verdict import Result, read_checks

CHECK = "from helpers.checks import Checks\nchecks = Checks('hw0/q0', {'1': 2, '2': 3})"
CHECK += "\nchecks.close('1', 'one is <one>', 1.0, 1.0, 1e-9, 'exact')"
REPORT = "checks.report(expected=1)"


def store(path: Path, *sources: str) -> Path:
    """A notebook of these cells between a check and its report."""
    cells = [new_code_cell(source) for source in (CHECK, *sources, REPORT)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def execute(path: Path, limit: float | None = 60, **calls) -> Result:
    """Run one notebook; its outputs go to path.out."""
    kernel = run.environment("quick")
    return asyncio.run(gate.execute("hw0/q0", path, path.with_suffix(".out"), kernel, limit, **calls))


@pytest.fixture
def played(tmp_path):
    """Run these cells between a check and its report."""
    return lambda *sources, **options: execute(store(tmp_path / "q0.ipynb", *sources), **options)


def test_notebook_that_holds_passes_and_its_lying_outputs_are_replaced(tmp_path):
    path = store(tmp_path / "q0.ipynb", "print(6 * 7)", "[k for k in dir() if 'guard' in k or k == '_exit_code']")
    nb = nbformat.read(path, 4)
    nb.cells[1].outputs = [new_output("stream", name="stdout", text="41\n")]
    nb.metadata["kernelspec"] = {"name": "not-installed", "display_name": "?", "language": "python"}
    nbformat.write(nb, path)
    begun = []
    result = execute(path, on_start=begun.append, on_cell=begun.append)
    assert (result.failures, result.cells, result.executed) == ([], 4, 4)
    assert (result.passed, result.expected, result.points) == (1, 1, {"1": 2, "2": 3})
    assert begun == [4, 1, 2, 3, 4]
    new = nbformat.read(path.with_suffix(".out"), 4)
    assert new.cells[1].outputs[0].text == "42\n"
    assert new.cells[2].outputs[0].data["text/plain"] == "[]", "the guard must leave no name"
    assert [c.execution_count for c in new.cells] == [1, 2, 3, 4], "nor count as a cell"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('too small')\n", "ValueError: too small"),
        ("%nosuchmagic 3\nraise ValueError", "`%nosuchmagic` not found"),
        ("%pip install --no-index --no-input no-such-distribution", "non-zero exit status"),
        ("!exit 7", "returned non-zero exit status 7"),
        ("lines = !exit 7", "returned non-zero exit status 7"),
        ("%%bash\nexit 7", "returned non-zero exit status 7"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("exit()", "asked the kernel to exit"),
        (
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()",
            "ZeroDivisionError",
        ),
        ("from ipywidgets import interact\ninteract(lambda k: 1 / 0, k=(0, 3));", "ZeroDivisionError"),
        (
            "import ipywidgets\nslider = ipywidgets.IntSlider()\n"
            "slider.observe(lambda change: 1 / 0, 'value')\nslider.value = 5",
            "ZeroDivisionError",
        ),
        (
            "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    1 / 0\nout.clear_output()",
            "ZeroDivisionError",
        ),
        (
            "import ipywidgets\nbad = dict(output_type='error', ename='E', evalue='set', traceback=[])\n"
            "ipywidgets.Output(outputs=(bad,))",
            "E: set",
        ),
        ("input()", "StdinNotImplementedError"),
    ],
    ids=lambda text: text.split()[-1][-20:] if " " in text else text,
)
def test_error_fails(played, source, message):
    result = played(source, "after = 1")
    first = result.failures[0]
    assert first.cell == 2 and message in first.message
    assert result.executed == 2
    assert result.failures[-1].message == "2 of 4 code cells gave no reply or were not run"
    assert len(result.failures) == 2
    assert "\x1b" not in first.traceback


def test_tracebacks_switched_off_in_an_earlier_cell(played):
    result = played("get_ipython().showtraceback = lambda *a, **k: None", "assert 1 == 2")
    assert result.failures[0].cell == 3 and "AssertionError" in result.failures[0].message


def test_cell_marked_as_raising_and_skipped_is_judged_all_the_same(tmp_path):
    path = store(tmp_path / "q0.ipynb", "1 / 0")
    nb = nbformat.read(path, 4)
    nb.cells[1].metadata["tags"] = ["raises-exception", "skip-execution"]
    nbformat.write(nb, path)
    assert "ZeroDivisionError" in execute(path).failures[0].message


def test_first_cell_raises_and_the_traceback_is_kept(tmp_path):
    path = tmp_path / "q0.ipynb"
    cells = [new_code_cell(s, id=f"c{i}") for i, s in enumerate(("def f():\n    return 1 / 0\nf()", "f()", REPORT))]
    nbformat.write(new_notebook(cells=cells), path)
    result = execute(path)
    assert [f.cell for f in result.failures] == [1, 0]
    assert result.failures[0].cell_id == "c0" and "return 1 / 0" in result.failures[0].traceback


def test_killed_kernel_is_noticed_at_once(played):
    begun = {}
    result = played(
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "after = 1",
        limit=None,
        on_cell=lambda k: begun.setdefault(k, monotonic()),
    )
    assert monotonic() - begun[2] < 3
    assert result.failures[0].cell == 2 and "the kernel died" in result.failures[0].message
    assert result.executed == 1 and "3 of 4" in result.failures[-1].message


def test_last_words_of_a_crashed_kernel_are_kept(played):
    result = played("import os\nos.write(2, b'out of luck')\nos.abort()", limit=None)
    assert "out of luck" in result.failures[0].traceback


def test_report_that_is_not_in_the_last_cell(tmp_path):
    path = tmp_path / "q0.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(s) for s in (CHECK, REPORT, "2 + 2")]), path)
    (failure,) = execute(path).failures
    assert failure.cell == 3 and "the last code cell reports no checks" in failure.message


@pytest.mark.parametrize(
    ("verdicts", "expected", "message"),
    [
        (["✓"], 1, None),
        (["✓", "not judged"], 2, None),
        (["✓"], 2, "1 checks recorded, 2 expected"),
        (["✓", "✗"], 2, "not held: ['c1']"),
        ([], 0, "0 checks recorded"),
        (None, 1, "the last code cell reports no checks"),
    ],
)
def test_report_is_read_with_suspicion(verdicts, expected, message):
    cell = new_code_cell("report")
    if verdicts is not None:
        records = [{"claim": f"c{i}", "verdict": v} for i, v in enumerate(verdicts)]
        data = {"application/vnd.dgm.checks+json": {"records": records, "expected": expected, "points": {}}}
        cell.outputs = [new_output("display_data", data=data)]
    result = Result("hw0/q0")
    read_checks(new_notebook(cells=[cell]), result)
    assert [f.message for f in result.failures] == [] if message is None else message in result.failures[0].message
    assert result.passed == (verdicts or []).count("✓")


def test_cell_over_its_limit_does_not_hide_a_later_failure(played):
    result = played("import time\ntime.sleep(60)", "fine = 1", "assert 1 == 2", limit=1)
    assert [f.cell for f in result.failures] == [2, 4, 0]
    assert "over its limit of 1 s and interrupted" in result.failures[0].message
    assert "time.sleep(60)" in result.failures[0].traceback
    assert "AssertionError" in result.failures[1].message


def test_late_cell_fails_even_if_all_others_hold(played):
    stubborn = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
    result = played(stubborn, limit=1)
    assert [f.cell for f in result.failures] == [2] and result.executed == 3
    assert (result.passed, result.expected) == (1, 1)


def test_loop_that_swallows_the_interrupt_is_killed(played, monkeypatch):
    monkeypatch.setattr(gate, "GRACE", 1.0)
    loop = "import time\nwhile True:\n  try:\n    time.sleep(1)\n  except KeyboardInterrupt:\n    pass"
    begin = monotonic()
    result = played(loop, "after = 1", limit=1)
    assert monotonic() - begin < 10
    assert "swallowed" in result.failures[0].message and "3 of 4" in result.failures[-1].message


def test_interact_does_not_stall(played):
    cells = ["from ipywidgets import interact\ninteract(lambda k: print(k), k=(0, 3));"] * 10
    begun = {}
    result = played(*cells, limit=None, on_cell=lambda k: begun.setdefault(k, monotonic()))
    assert result.ok
    assert begun[12] - begun[2] < 8


def test_failed_kernel_start_is_tried_once_more(played, monkeypatch):
    start, tries = gate.AsyncKernelManager.start_kernel, []

    async def flaky(self, **options):
        tries.append(self)
        if len(tries) <= bad:
            raise RuntimeError("port taken")
        return await start(self, **options)

    monkeypatch.setattr(gate.AsyncKernelManager, "start_kernel", flaky)
    bad = 1
    assert played().ok and len(tries) == 2
    bad, tries[:] = 9, []
    result = played()
    assert "did not start, tried twice: port taken" in result.failures[0].message and len(tries) == 2


def test_unreadable_notebook_fails(tmp_path):
    path = tmp_path / "q0.ipynb"
    path.write_text("{}")
    assert "cannot be read" in execute(path).failures[0].message
