"""The gate must fail on every trap that lets a broken notebook pass elsewhere; one tiny notebook each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course import run as runner
from course.execute import execute

ROOT = Path(__file__).parent.parent
CHECK = "from helpers.checks import Checks\nchecks = Checks('x', points={'a': 2})\nchecks.equal('a', 'one', 1, 1)"
REPORT = "checks.report(expected=1)"


def write(folder, *sources, kernel="python3", last=REPORT, name="q"):
    cells = [new_code_cell(source) for source in (CHECK, *sources, *([last] if last else []))]
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    path = folder / "hw" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


def test_a_sound_notebook_passes_and_its_points_are_read(tmp_path):
    target = tmp_path / "out" / "q.ipynb"
    outcome = execute(write(tmp_path, "print('hello')"), target)
    assert outcome.passed and (outcome.checks, outcome.expected, outcome.points) == (1, 1, {"a": 2})
    assert outcome.executed == outcome.cells == 3
    written = nbformat.read(target, as_version=4)
    assert written.cells[1].outputs[0].text == "hello\n" and [c.execution_count for c in written.cells] == [1, 2, 3]


TRAPS = {
    "unknown magic first in a cell": "%nosuchmagic\nx = 1",
    "failing %pip install": "%pip install --no-index no-such-package-at-all",
    "failing shell command": "!false",
    "failing shell command whose output is kept": "x = !false",
    "traceback printing disabled": "get_ipython().showtraceback = lambda *a, **k: None\nassert 1 == 2",
    "error in an interact callback": "from ipywidgets import interact\ninteract(lambda k: 1 / 0, k=(0, 3))",
    "error in an observe callback": "import ipywidgets as w\ns = w.IntSlider()\ns.observe(lambda c: 1 / 0)\ns.value = 3",  # noqa: E501
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "an exception": "raise KeyError('lost')",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_trap(tmp_path, trap):
    outcome = execute(write(tmp_path, TRAPS[trap]), limit=30)
    assert not outcome.passed, trap
    assert str(ROOT) not in outcome.failures[0][1]


def test_the_first_failure_carries_its_traceback(tmp_path):
    outcome = execute(write(tmp_path, "def f():\n    raise KeyError('lost')\nf()", "f()"))
    cell, message = outcome.failures[0]
    assert "KeyError: 'lost'" in message and "in f()" in message and "\x1b" not in message
    assert len(outcome.failures) == 1 and outcome.executed == 1 and cell


@pytest.mark.parametrize("last", [None, "checks.report(expected=2)", "print('all fine')"])
def test_a_notebook_that_does_not_prove_its_checks_fails(tmp_path, last):
    assert not execute(write(tmp_path, last=last)).passed


def test_a_killed_kernel_is_noticed_within_three_seconds(tmp_path):
    path = write(
        tmp_path,
        "import os, signal, time\nopen('when', 'w').write(str(time.time()))\nos.kill(os.getpid(), signal.SIGKILL)",
    )
    outcome = execute(path)
    assert "died" in outcome.failures[0][1]
    assert time.time() - float((path.parent / "when").read_text()) < 3 + 1  # the kernel's clean-up included


def test_a_cell_over_its_limit_does_not_hide_a_later_failure(tmp_path):
    outcome = execute(write(tmp_path, "while True: pass", "assert False, 'later'"), limit=2)
    assert ["longer than 2 s" in outcome.failures[0][1], "later" in outcome.failures[1][1]] == [True, True]


def test_a_loop_that_swallows_the_interrupt_is_killed(tmp_path):
    loop = "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except KeyboardInterrupt: pass"
    began = time.monotonic()
    outcome = execute(write(tmp_path, loop), limit=2)
    assert "longer than 2 s" in outcome.failures[0][1] and outcome.executed == 1
    assert time.monotonic() - began < 20


def test_a_kernel_name_that_is_not_installed_runs_in_this_environment(tmp_path):
    assert execute(write(tmp_path, kernel="conda-env-of-somebody")).passed


def test_interact_does_not_stall(tmp_path):
    source = "from ipywidgets import interact\nfor i in range(5):\n    interact(lambda k: print(k), k=(0, 3))"
    began = time.monotonic()
    assert execute(write(tmp_path, source, source), limit=60).passed
    assert time.monotonic() - began < 20


def test_stored_outputs_that_lie_are_replaced(tmp_path):
    path = write(tmp_path, "print(1 + 1)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    nbformat.write(notebook, path)
    execute(path, tmp_path / "out.ipynb")
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[1].outputs[0].text == "2\n"


def test_not_a_notebook(tmp_path):
    path = tmp_path / "q.ipynb"
    path.write_text("{")
    assert "not a readable notebook" in execute(path).failures[0][1]


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "BUILD", tmp_path / "build")
    return tmp_path / "build"


def test_reports_say_what_passed_and_what_failed(tmp_path, build, monkeypatch, capsys):
    good, bad = write(tmp_path, name="good"), write(tmp_path, "1 / 0  # <b>", name="bad")
    monkeypatch.setattr(runner, "one", lambda path, limit, show: execute(path, None, limit))
    outcomes = runner.run([good, bad], live=False)
    assert [o.passed for o in outcomes] == [True, False]
    data = json.loads((build / "report.json").read_text())
    assert data["passed"] == 1 and data["notebooks"][0]["points total"] == 2
    assert "ZeroDivisionError" in data["notebooks"][1]["failures"][0][1]
    page = (build / "report.html").read_text()
    assert "hw/bad" in page and "&lt;b&gt;" in page and "http" not in page and str(ROOT) not in page
    assert "1 of 2 notebooks passed" in capsys.readouterr().out


SCRIPT = """
import sys
from pathlib import Path
from course import run as runner
runner.BUILD = Path(sys.argv[1])
sys.exit(not all(o.passed for o in runner.run([Path(p) for p in sys.argv[2:]], jobs=1, live=False)))
"""


def test_killed_and_started_again_it_keeps_what_was_finished(tmp_path):
    count = "open('runs-{}', 'a').write('x')"
    first = write(tmp_path, count.format(1), name="first")
    second = write(tmp_path, count.format(2), "import time; time.sleep(4)", name="second")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "build"), str(first), str(second)]
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    marker = tmp_path / "hw" / "runs-2"
    end = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < end:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(list((tmp_path / "build" / "state").glob("*.json"))) == 1
    time.sleep(2)  # whatever the dead runner had started is gone by now
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(second) not in listing
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=60)
    assert (tmp_path / "hw" / "runs-1").read_text() == "x" and marker.read_text() == "xx"
    assert not list((tmp_path / "build" / "state").glob("*.json"))


def test_names(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        runner.main(["hw9/q9_nothing"])
    assert "no notebook hw9/q9_nothing; there are:" in capsys.readouterr().err


def test_nbval_notices_a_killed_kernel(tmp_path):
    path = write(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    command = [sys.executable, "-m", "pytest", "-p", "course.nbval_alive", "-p", "no:cacheprovider", "--nbval-lax"]
    command += ["--nbval-current-env", "--nbval-cell-timeout=60", "-q", "--rootdir", str(tmp_path), str(path)]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and "kernel died" in done.stdout
    assert time.monotonic() - began < 30
