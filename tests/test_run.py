"""The runner: names, reports, interruption; and nbval's plugin."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
from test_gate import execute, store

from course import report, run
from course.verdict import Failure, Result, plain


def gone(pid: int, patience: float = 3.0) -> bool:
    """Whether the process ends within `patience` seconds; a zombie has ended."""
    end = monotonic() + patience
    while monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        sleep(0.05)
    return False


def test_nothing_that_a_cell_started_outlives_a_dead_kernel(tmp_path):
    pid = tmp_path / "pid"
    started = f"import os, subprocess\nchild = subprocess.Popen(['sleep', '600'])\nf = open({str(pid)!r}, 'w')"
    store(tmp_path / "q0.ipynb", started + "\nf.write(str(child.pid))\nf.close()\nos._exit(0)")
    assert "the kernel died" in execute(tmp_path / "q0.ipynb").failures[0].message
    assert gone(int(pid.read_text()))


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("{PROJECT}/helpers/checks.py:7", "./helpers/checks.py:7"),
        ("{prefix}/lib/x.py", "<environment>/lib/x.py"),
        ("File /opt/other/lib/x.py:3, in f", "File …/x.py:3, in f"),
        ("{data}/mnist/a.gz is missing", "$DGM_DATA/mnist/a.gz is missing"),
        ("{home}/notes.txt and ~/notes.txt", "~/notes.txt and ~/notes.txt"),
        ("{data}-old", "{data}-old"),
        ("see https://example.org/a/b", "see example.org/a/b"),
        ("x = a/b/c; 1/2/3; p(x)/(q/r)", "x = a/b/c; 1/2/3; p(x)/(q/r)"),
    ],
    ids="project environment other data home longer address division".split(),
)
def test_tracebacks_name_no_folder_of_this_machine(monkeypatch, text, tidy):
    monkeypatch.setattr(run, "PROJECT", Path("/srv/course"))
    monkeypatch.setattr(sys, "prefix", "/srv/venv")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/us"))
    monkeypatch.setenv("DGM_DATA", "/data")
    names = {"PROJECT": "/srv/course", "prefix": "/srv/venv", "home": "/home/us", "data": "/data"}
    assert run.tidy(text.format(**names)) == tidy.format(**names)
    short = "~/venv/lib/x.py"  # IPython writes folders below home so
    monkeypatch.setattr(sys, "prefix", "/home/us/venv")
    assert run.tidy(short) == "<environment>/lib/x.py"


def command(folder: Path, *names: str) -> list[str]:
    where = "--notebooks", str(folder / "notebooks"), "--build", str(folder / "build")
    return [sys.executable, "-m", "course.run", *where, *names]


def test_reports(tmp_path):
    store(tmp_path / "notebooks/hw1/q1.ipynb")
    bad = "def f():\n    from helpers.checks import Checks\n    Checks('').equal('1', '<b>&', 1, 2)\nf()"
    store(tmp_path / "notebooks/hw1/q2.ipynb", bad)
    done = subprocess.run(command(tmp_path), cwd=run.PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "1 of 2 passed" in done.stdout
    assert "hw1/q1: 2 cells" in done.stdout and "✓ hw1/q1: 1/1 checks" in done.stdout
    assert done.stdout.count("ValueError: part '1' is not among the parts") == 2, "at once, and below the table"
    made = json.loads((tmp_path / "build/report.json").read_text())
    assert made["profile"] == "quick" and made["python"] == run.platform.python_version() and made["torch"]
    first, second = made["notebooks"]
    assert (first["name"], first["verdict"], first["points_total"]) == ("hw1/q1", "passed", 5)
    assert first["points"] == {"1": 2, "2": 3} and first["first_failure"] is None and first["seconds"] > 0
    assert (second["passed"], second["expected"]) == (1, 1), "what a failed notebook had shown till then"
    assert second["verdict"] == "failed" and second["failures"][0]["cell"] == 2
    trace = second["first_failure"]["traceback"]
    assert "ValueError" in trace and "helpers/checks.py" in trace
    page = (tmp_path / "build/report.html").read_text()
    for text in (page, json.dumps(made)):
        assert "://" not in text and str(run.PROJECT) not in text and str(tmp_path) not in text
        assert sys.prefix not in text
    assert "1 of 2 notebooks passed" in page and 'href="notebooks/hw1/q1.ipynb"' in page
    assert (tmp_path / "build/notebooks/hw1/q1.ipynb").exists()
    assert not list((tmp_path / "build/state").glob("*")), "a complete run begins afresh"


def test_names(tmp_path):
    for name in ("hw1/q1", "hw2/q1"):
        store(tmp_path / f"{name}.ipynb")
    store(tmp_path / "hw1/.ipynb_checkpoints/q1.ipynb")
    assert list(run.find(tmp_path, [])) == ["hw1/q1", "hw2/q1"]
    for name in ("hw2/q1", "hw2/q1.ipynb", "notebooks/hw2/q1", "./notebooks/hw2/q1.ipynb"):
        assert list(run.find(tmp_path, [name])) == ["hw2/q1"]
    with pytest.raises(ValueError, match=r"unknown notebook hw3/q1; there are:\n  hw1/q1\n  hw2/q1"):
        run.find(tmp_path, ["hw3/q1"])
    with pytest.raises(ValueError, match="no notebook"):
        run.find(tmp_path / "nowhere", [])


def test_key_follows_notebook_helpers_profile_and_data(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PROJECT", tmp_path)
    path = store(tmp_path / "q0.ipynb")
    helper = tmp_path / "helpers" / "a.py"
    helper.parent.mkdir()
    helper.write_text("x = 1")
    monkeypatch.setenv("DGM_DATA", "here")
    keys = [run.key(path, "quick"), run.key(path, "full")]
    monkeypatch.setenv("DGM_DATA", "there")
    keys.append(run.key(path, "quick"))
    helper.write_text("x = 2")
    keys.append(run.key(path, "quick"))
    store(path, "1")
    keys.append(run.key(path, "quick"))
    assert len(set(keys)) == 5 and keys[-1] == run.key(path, "quick")


def test_only_what_passed_is_recalled(tmp_path):
    state = tmp_path / "s.json"
    assert run.recall(state, "k") is None
    for result in (
        Result("hw1/q1", 1.5, 2, 2, 1, 1, {"1": 2.0}),
        Result("hw1/q1", failures=[Failure(1, "", "no")]),
    ):
        stored = {k: v for k, v in report.as_dict(result).items() if k in Result.__dataclass_fields__}
        report.write(state, json.dumps({"key": "k", "result": stored}))
        assert run.recall(state, "k") == (result if result.ok else None)
        assert run.recall(state, "another") is None
    state.write_text("{half")
    assert run.recall(state, "k") is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_goes_on_where_it_stopped(tmp_path, capsys, number):
    count = "with open({!r}, 'a') as f:\n    f.write('x')"
    pid, gate_open = tmp_path / "pid", tmp_path / "open"
    wait = f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\n"
    wait += f"while not os.path.exists({str(gate_open)!r}):\n    time.sleep(0.1)"
    store(tmp_path / "notebooks/hw1/q1.ipynb", count.format(str(tmp_path / "q1")))
    store(tmp_path / "notebooks/hw1/q2.ipynb", count.format(str(tmp_path / "q2")), wait)
    runner = subprocess.Popen(command(tmp_path), cwd=run.PROJECT, stdout=subprocess.PIPE, text=True)
    end = monotonic() + 30
    while not (pid.exists() and pid.read_text() and (tmp_path / "build/state/hw1__q1.json").exists()):
        assert monotonic() < end and runner.poll() is None
        sleep(0.1)
    runner.send_signal(number)
    said, _ = runner.communicate(timeout=10)
    if number == signal.SIGKILL:
        assert runner.returncode == -number
    else:
        assert runner.returncode == 130 and "run again to continue" in said
    assert gone(int(pid.read_text())), "the kernel outlived its runner"
    gate_open.touch()
    assert run.main(command(tmp_path)[3:]) == 0
    assert "✓ hw1/q1: 1/1 checks, kept from the interrupted run" in capsys.readouterr().out
    assert ((tmp_path / "q1").read_text(), (tmp_path / "q2").read_text()) == ("x", "xx")
    verdicts = [n["verdict"] for n in json.loads((tmp_path / "build/report.json").read_text())["notebooks"]]
    assert verdicts == ["passed", "passed"]


def test_complete_run_begins_afresh(tmp_path):
    count = tmp_path / "count"
    store(tmp_path / "notebooks/hw1/q1.ipynb", f"with open({str(count)!r}, 'a') as f:\n    f.write('x')")
    assert [run.main(command(tmp_path, "hw1/q1")[3:]) for _ in range(2)] == [0, 0]
    assert count.read_text() == "xx"


def test_nbval_notices_a_killed_kernel(tmp_path):
    store(tmp_path / "q0.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "after = 1")
    begin = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "course.nbval_alive", "-p", "no:cacheprovider", "--nbval-lax"]
        + ["--nbval-current-env", "--nbval-cell-timeout=60", "-q", "--rootdir", str(tmp_path), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(run.PROJECT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "the kernel died while running this cell" in done.stdout
    assert "3 failed, 1 passed" in done.stdout
    assert monotonic() - begin < 15


def test_display_on_a_terminal_shows_bars(capsys):
    console = report.Console(force_terminal=True, width=100)
    with report.Display(console) as display:
        display.start("hw1/q1", 3)
        display.cell("hw1/q1", 2)
        display.bars.refresh()
        display.done(Result("hw1/q1", 1.0, 3, 3, 4, 4))
    said = plain(capsys.readouterr().out)
    assert "cell 2/3" in said and "✓ hw1/q1: 4/4 checks, 1.0 s" in said
