"""The lint finds each fault in a notebook that has only that one, and none in the notebooks of the course."""

import json
import tomllib

import pytest
import sample

from course import lint
from course.notebooks import all_notebooks, name_of

NOTEBOOKS = all_notebooks()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "hw0_sample"
    path.mkdir()
    return path


def faults(folder, book, points=sample.POINTS):
    """The lint's faults of a notebook given as a dict."""
    path = folder / "q1_square.ipynb"
    path.write_text(json.dumps(book), encoding="utf-8")
    return lint.faults(path, points)


def cell(book, name):
    """A cell by its id."""
    return next(c for c in book["cells"] if c["id"] == name)


def grader(name, **fields):
    """Changes the nbgrader metadata of a cell; None removes a field."""

    def change(book):
        data = cell(book, name)["metadata"]["nbgrader"]
        data.update(fields)
        for key in [key for key, value in fields.items() if value is None]:
            del data[key]

    return change


def source(name, old, new):
    """Replaces text that occurs in a cell; an empty `old` stands for the whole."""

    def change(book):
        one = cell(book, name)
        assert old in one["source"]
        one["source"] = one["source"].replace(old, new) if old else new

    return change


def put(name, **fields):
    """Sets fields of a cell."""
    return lambda book: cell(book, name).update(fields)


def tag(name, label):
    """Tags a cell."""
    return lambda book: cell(book, name)["metadata"]["tags"].append(label)


def output(where, /, **fields):
    """Adds a stored output to a cell."""
    return lambda book: cell(book, where)["outputs"].append(fields)


def move(name, index):
    """Moves a cell; the execution counts stay in order."""

    def change(book):
        one = cell(book, name)
        book["cells"].remove(one)
        book["cells"].insert(index, one)
        for count, code in enumerate([c for c in book["cells"] if c["cell_type"] == "code"], 1):
            code["execution_count"] = count

    return change


FAULTS = [  # (change, what the lint says, how many faults it finds: one, unless others follow)
    (grader("a_formula", solution=False), "none of"),
    (grader("a_check", locked=False), "none of", 2),
    (lambda book: cell(book, "a_caption")["metadata"].pop("nbgrader"), "none of", 2),
    (grader("a_formula", grade_id="a_check"), "grade_id 'a_check' occurs 2 times"),
    (grader("a_formula", grade_id=""), "1 cells have no grade_id"),
    (grader("a_formula", grade_id="a formula"), "wanted letters"),
    (lambda book: cell(book, "a_caption").pop("id"), "1 cells have no id"),
    (put("a_caption", id="title"), "id 'title' occurs 2 times"),
    (grader("a_formula", schema_version=2), "schema_version 2"),
    (grader("a_check", points=None), "without points", 2),
    (grader("a_check", points=3), "part a: cells give 4 points"),
    (grader("a_check", grade_id="b_check"), "part b: cells give 2 points", 2),
    (grader("a_caption", solution=True, locked=False), "a solution cell in Markdown"),
    (grader("a_figure", solution=True, grade=True, points=0), "a manual cell in code"),
    (source("a_formula", "def", "%matplotlib inline\ndef"), "line 1, '%matplotlib inline': a magic"),
    (source("a_formula", "def", "!pip list\ndef"), "a magic"),
    (source("a_formula", "def", "%%time\ndef"), "a magic"),
    (source("settings", "", "import os\nos.system('ls')"), "os.system: no shell"),
    (source("settings", "", "from os import system"), "os.system: no shell"),
    (source("settings", "", "import subprocess"), "subprocess: no shell"),
    (source("settings", "", "get_ipython().run_line_magic('pip', 'list')"), "get_ipython"),
    (source("setup", "from helpers", "os.system('ls')\nfrom helpers"), "os.system, os.system: no shell"),
    (source("setup", "import os\n", "import os\nimport math\n"), "first 5 lines"),
    (source("setup", "from helpers", "import math\n" * 6 + "from helpers"), "wanted at most 10"),
    (move("setup", 3), "the second cell", 3),
    (lambda book: book["cells"].insert(1, sample.cell("locked", "title_2", "More.", code=False)), "the second cell"),
    (move("settings", 4), "the second code cell"),
    (move("report", 5), "the last code cell"),
    (source("report", "expected=3", ""), "the last code cell"),
    (source("report", "expected=3", "expected=0"), "the last code cell"),
    (source("report", "checks", "if False:\n    checks"), "the last code cell"),
    (put("a_check", execution_count=7), "execution counts"),
    (put("a_check", execution_count=None), "execution counts"),
    (output("a_check", output_type="error", ename="ValueError"), "a stored error: ValueError"),
    (output("a_check", **sample.text("careful", "stderr")), "output on stderr: 'careful'"),
    (output("a_check", output_type="display_data", data={lint.WIDGET + "-view+json": {}}), "a stored widget"),
    (tag("a_formula", "nbval-check-output"), "none is stored"),
    (source("a_formula", "def", "# NBVAL_CHECK_OUTPUT\ndef"), "none is stored"),
    (source("a_formula", "def", "# NBVAL_SKIP\ndef"), "hides failures"),
    *[(tag("a_check", label), "hides failures") for label in sorted(lint.REFUSED)],
    (lambda book: book["metadata"].update(widgets={"state": {}}), "widget state"),
    (lambda book: book["metadata"].update(padding="x" * lint.SIZE), "MB, wanted less"),
    (source("title", '<div dir="rtl" lang="fa">', "<div>"), "no <div"),
    (source("title", "\n\n</div>", "\n</div>"), "no <div"),
    (source("title", sample.PERSIAN, "متن"), "not restated in Persian"),
    (source("title", "Derive the derivative of the square and check it by finite", ""), "not restated in English"),
    (source("title", "(الف)", "(ب)"), "its letter الف"),
    (source("a_caption", "**Figure 1.** A pixel.", ""), "a figure without a caption"),
    (move("a_caption", 3), "a figure without a caption"),
    (source("a_caption", "Figure 1", "Figure 2"), "captions **Figure n.** are numbered [2]"),
    (source("a_caption", "Table 1", "Table 2"), "captions **Table n.** are numbered [2]"),
    (put("a_figure", outputs=[]), "no figure"),
    (source("a_derivation", "$((x", "<!-- BEGIN SOLUTION -->\n$((x"), "BEGIN SOLUTION"),
    (source("a_check", "for x", "### BEGIN HIDDEN TESTS\nfor x"), "BEGIN HIDDEN TESTS"),
]


@pytest.mark.parametrize(("change", "message", "count"), [(*f, 1)[:3] for f in FAULTS], ids=[f[1] for f in FAULTS])
def test_one_fault(folder, change, message, count):
    book = sample.notebook()
    change(book)
    found = faults(folder, book)
    assert len(found) == count and any(message in fault for fault in found), found


def test_no_fault(folder):
    assert faults(folder, sample.notebook()) == []


def test_a_notebook_without_points(folder):
    (fault,) = faults(folder, sample.notebook(), points={})
    assert fault == "points.toml: no entry [hw0_sample.q1_square]"


QUESTION = sample.POINTS["hw0_sample"]["q1_square"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"total": 4}, "parts sum to 3, total is 4"),
        ({"parts": {"a": 2}}, "parts sum to 2"),
        ({"parts": {"a": 3, "b": 2}}, "do not name the parts"),
        ({"bonus_parts": ["c"]}, "do not name the parts"),
        ({"source": "guess"}, "source is 'guess'"),
    ],
)
def test_faulty_points(changed, message):
    (fault,) = lint.points_faults({"hw": {"q": QUESTION | changed}}, questions=1)
    assert message in fault


def test_bonus_parts_come_on_top():
    bonus = QUESTION | {"parts": {"a": 3, "b": 2}, "persian": {"a": "الف", "b": "ب"}, "bonus_parts": ["b"]}
    assert lint.points_faults({"hw": {"q": bonus}}, questions=1) == []
    assert lint.points_faults({"hw": {"q": {"total": 1}}}, questions=2)[0].startswith(
        "points.toml: 1 questions, wanted 2"
    )


def test_points_of_the_course():
    """29 questions; the totals of the sheets: hw1 105, hw2 290 + 25, hw3 105 + 5."""
    table = tomllib.loads(lint.POINTS.read_text(encoding="utf-8"))
    assert lint.points_faults(table) == []
    totals = {hw: [q["total"] for q in group.values() if not q.get("bonus")] for hw, group in table.items()}
    assert totals["hw1_vae_gan"] == [10, 10, 20, 20, 15, 15, 15]
    assert totals["hw2_divergences_diffusion"] == [40, 40, 50, 60, 100]
    assert totals["hw3_pgm_vae"] == [15, 8, 12, 15, 3, 3, 30, 6, 7, 6] and sum(totals["hw3_pgm_vae"]) == 105
    bonus = [sum(q["parts"][b] for q in group.values() for b in q.get("bonus_parts", [])) for group in table.values()]
    assert bonus == [0, 25, 0, 15, 0] and table["hw3_pgm_vae"]["q04_edge_removal_imap"]["total"] == 5
    assert [len(group) for group in table.values()] == [7, 5, 11, 3, 3]


def test_command(folder, capsys):
    path = folder / "q1_square.ipynb"
    path.write_text(json.dumps(sample.notebook()), encoding="utf-8")
    assert lint.main([str(path)]) == 1  # the sample is not in points.toml
    assert "no entry [hw0_sample.q1_square]" in capsys.readouterr().out
    assert lint.main(["no/such"]) == 2


@pytest.mark.skipif(not NOTEBOOKS, reason="no notebooks yet")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook(path):
    assert lint.faults(path) == []
