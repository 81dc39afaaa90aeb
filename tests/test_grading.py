"""The source handed in scores all automatic points, the release none, and the release gives nothing away.

Each assignment is graded twice through nbgrader, once as each of two students. Sliders would stall the kernel; the
helper draws their static twin alone while nbgrader executes.
"""

import json
import shutil

import pytest
import sample
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI

from course.nbgrader_config import CODE_STUB, TEXT_STUB, config
from course.notebooks import ROOT, all_notebooks

pytestmark = pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's use of SQLAlchemy
ASSIGNMENTS = sorted({path.parent for path in all_notebooks()})


def cells(path):
    """The cells of a stored notebook by grade_id, sources as one string."""
    stored = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {c["metadata"]["nbgrader"]["grade_id"]: c | {"source": "".join(c["source"])} for c in stored}


def release(source, root, monkeypatch):
    """Generate the student version of an assignment below `root`; returns nbgrader's API and the release's folder."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(source, root / "notebooks" / source.name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    api = NbGraderAPI(config=config(root))
    result = api.generate_assignment(source.name, force=True, create=True)
    assert result["success"], result.get("error") or result.get("log")
    return api, root / "build" / "release" / source.name


def gives_nothing_away(source, released):
    """Assert that solutions are replaced whole, and that no output, widget or line of a solution is left."""
    raw, full, left = released.read_text(encoding="utf-8"), cells(source), cells(released)
    book = json.loads(raw)
    assert set(full) == set(left) and not {"widgets", "execution"} & set(book["metadata"])
    kept = "\n".join(c["source"] for c in full.values() if not c["metadata"]["nbgrader"]["solution"])
    for name, cell in left.items():
        grader = cell["metadata"]["nbgrader"]
        assert not cell.get("outputs") and cell.get("execution_count") is None, f"{name} has outputs"
        assert set(cell["metadata"]) <= {"nbgrader", "tags", "deletable", "editable"}, name
        if grader["solution"]:
            assert cell["source"] == (TEXT_STUB if grader["grade"] else CODE_STUB), f"{name} is not cleared"
            lines = [line.strip() for line in full[name]["source"].splitlines()]
            secrets = [line for line in lines if len(line) > 40 and line not in kept]
            assert not [line for line in secrets if json.dumps(line)[1:-1] in raw], name
        else:
            assert cell["source"] == full[name]["source"], f"{name} is changed"


def score(api, assignment, student, folder, root):
    """Hand a folder's notebooks in as a student's, grade them; automatic points and most points by (notebook, cell)."""
    shutil.copytree(folder, root / "build" / "submitted" / student / assignment)
    result = api.autograde(assignment, student, force=True, create=True)
    assert result["success"], result.get("error") or result.get("log")
    with Gradebook(f"sqlite:///{root}/build/gradebook.db") as book:
        graded = book.find_submission(assignment, student).notebooks
        automatic = [(n.name, g) for n in graded for g in n.grades if g.cell.cell_type == "code"]
        return {(n, g.name): (g.auto_score, g.max_score_gradecell) for n, g in automatic}


def graded_both_ways(source, root, monkeypatch):
    api, released = release(source, root, monkeypatch)
    for notebook in sorted(source.glob("*.ipynb")):
        gives_nothing_away(notebook, released / notebook.name)
    full = score(api, source.name, "source", source, root)
    lost = {key: points for key, points in full.items() if points[0] != points[1]}
    assert full and not lost, f"the source itself loses points: {lost}"
    empty = score(api, source.name, "release", released, root)
    won = {key: points for key, points in empty.items() if points[0]}
    assert set(empty) == set(full) and not won, f"the unfilled release wins points: {won}"


def test_sample(tmp_path, monkeypatch):
    source = tmp_path / "made" / "hw0_sample"
    source.mkdir(parents=True)
    book = sample.notebook()
    book["metadata"]["widgets"] = {"state": "our secret"}
    (source / "q1_square.ipynb").write_text(json.dumps(book), encoding="utf-8")
    graded_both_ways(source, tmp_path, monkeypatch)


def test_a_check_that_needs_no_solution_is_found(tmp_path, monkeypatch):
    source = tmp_path / "made" / "hw0_sample"
    source.mkdir(parents=True)
    book = sample.notebook()
    book["cells"][5]["source"] = "assert 1 + 1 == 2"
    (source / "q1_square.ipynb").write_text(json.dumps(book), encoding="utf-8")
    with pytest.raises(AssertionError, match="unfilled release wins points.*a_check"):
        graded_both_ways(source, tmp_path, monkeypatch)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", ASSIGNMENTS, ids=lambda path: path.name)
def test_assignment(source, tmp_path, monkeypatch):
    graded_both_ways(source, tmp_path, monkeypatch)
