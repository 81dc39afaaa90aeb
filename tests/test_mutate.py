"""The mutation runner: what each operator makes, how a mutant's fate is classed, and the real notebooks."""

import ast
import datetime
from pathlib import Path

import nbformat
import pytest

from course import mutate
from course.mutate import MutationError
from course.notebooks import all_notebooks, name_of
from course.operators import OPERATORS, candidates
from helpers.settings import folder

NOTEBOOKS = all_notebooks()
SHARE = 16  # one generated mutant in so many runs each day; make mutate runs all


def made(source, operator):
    """What one operator makes of a source, as the mutated sources."""
    return [mutated for _, name, mutated in candidates(source) if name == operator]


@pytest.mark.parametrize(
    ("operator", "source", "wanted"),
    [
        ("flip_sign", "a + b", ["a - b"]),
        ("flip_sign", "a - b * c", ["a + b * c"]),
        ("flip_sign", "a += b", ["a -= b"]),
        ("flip_sign", "-a", ["a"]),
        ("flip_sign", "x[-1]", ["x[1]"]),
        ("flip_sign", "x.clamp(-1, 1)", ["x.clamp(1, 1)"]),
        ("flip_sign", "x.sum(-1)", []),
        ("flip_sign", "torch.stack(xs, dim=-1)", []),
        ("flip_sign", "'a' + b + 'c'", []),
        ("flip_sign", "xs + [1]", []),
        ("drop_half", "0.5 * x", ["1.0 * x"]),
        ("drop_half", "x / 2", ["x / 1"]),
        ("drop_half", "2 * x", ["x"]),
        ("drop_half", "x * 2.0", ["x"]),
        ("drop_half", "x /= 2", ["x /= 1"]),
        ("drop_half", "x // 2 + x ** 0.5", []),
        ("sum_mean", "x.sum(1)", ["x.mean(1)"]),
        ("sum_mean", "torch.mean(x)", ["torch.sum(x)"]),
        ("sum_mean", "f(x, reduction='sum')", ["f(x, reduction='mean')"]),
        ("sum_mean", "mean(x)", ["sum(x)"]),
        ("swap_args", "f(a, b, c)", ["f(b, a, c)"]),
        ("swap_args", "kl.divergence(q, p)", ["kl.divergence(p, q)"]),
        ("swap_args", "torch.maximum(a, b)", []),
        ("swap_args", "range(1, n)", []),
        ("swap_args", "Linear(3, 3)", []),
        ("swap_args", "f(*a, b)", []),
        ("off_by_one", "x[0]", ["x[1]"]),
        ("off_by_one", "x[:, 2:]", ["x[:, 3:]"]),
        ("off_by_one", "x[f(2)]", []),
        ("off_by_one", "range(1, T + 1)", ["range(2, T + 1)", "range(1, T + 2)"]),
        ("off_by_one", "torch.linspace(-3, 3, 7)", ["torch.linspace(-4, 3, 7)", "torch.linspace(-3, 4, 7)"]),
        ("off_by_one", "t - 1", ["t - 2"]),
        ("off_by_one", "1 - t", []),
        ("off_by_one", "f(3)", []),
        ("drop_sqrt", "x.sqrt()", ["x"]),
        ("drop_sqrt", "math.sqrt(x)", ["x"]),
        ("drop_sqrt", "x ** 0.5", ["x ** 1"]),
        ("drop_sqrt", "x ** -0.5", ["x ** (-1)"]),
        ("drop_sqrt", "x.rsqrt()", ["1 / x"]),
        ("drop_sqrt", "torch.rsqrt(x)", ["1 / x"]),
        ("drop_square", "x ** 2", ["x ** 1"]),
        ("drop_square", "x.square()", ["x"]),
        ("drop_square", "x.pow(2)", ["x"]),
        ("drop_square", "torch.pow(x, 2)", ["x"]),
        ("drop_square", "x ** 3", []),
        ("drop_detach", "x.detach().sum()", ["x.sum()"]),
        ("drop_log", "x.log()", ["x"]),
        ("drop_log", "torch.log(x)", ["x"]),
        ("drop_log", "d.log_prob(x)", []),
        ("drop_exp", "x.exp()", ["x"]),
        ("drop_exp", "math.exp(-x)", ["-x"]),
    ],
)
def test_operator(operator, source, wanted):
    assert made(source, operator) == wanted


def test_every_operator_is_tried_above():
    marks = test_operator.pytestmark[0].args[1]
    assert {operator for operator, _, wanted in marks if wanted} == set(OPERATORS)


@pytest.mark.parametrize(
    "source",
    [
        "import a.b as c",
        "f'{x + 1:.2f} {-x}'",
        "raise ValueError('a' + b)",
        "print(a - b, x.sum())",
        "ax.plot(x + 1, y)",
        "axes[0, 1].set_title(a + b)",
        "x: list[2] = y",
        "def f(x: T[1]) -> T[2]:\n    '''2 * x, - x, x.sum()'''",
        "assert x, a + b",
    ],
)
def test_what_is_no_formula_stays(source):
    assert list(candidates(source)) == []


def test_built_in_sum_becomes_an_average():
    (mutated,) = made("y = sum(x * x for x in [1, 2, 3])", "sum_mean")
    space = {}
    exec(mutated, space)
    assert space["y"] == pytest.approx(14 / 3)


def test_each_mutant_changes_one_place_and_none_comes_twice():
    source = "def f(x, t):\n    y = -0.5 * (x[t - 1] ** 2).sum().sqrt() + math.log(2 * x)\n    return g(y, t) / 2"
    every = list(candidates(source))
    assert len({mutated for _, _, mutated in every}) == len(every) >= 10
    assert {line for line, _, _ in every} == {2, 3}
    original = ast.unparse(ast.parse(source)).splitlines()
    for line, _, mutated in every:
        changed = [i + 1 for i, (a, b) in enumerate(zip(original, mutated.splitlines(), strict=True)) if a != b]
        assert changed == [line]


ROLES = {
    "locked": {"locked": True},
    "solution": {"solution": True},
    "test": {"grade": True, "locked": True, "points": 1},
}
FORMULA = "def f(x):\n    return x + 1"
CHECK = "assert f(1) == 2"


@pytest.fixture
def course(tmp_path):
    """Writes a notebook of (role, id, source[, tags]) cells and its mutants; returns both paths."""

    def write(*cells, written=""):
        book = nbformat.v4.new_notebook()
        for role, name, source, *tags in cells:
            grader = {"grade": False, "solution": False, "locked": False, "schema_version": 3, "grade_id": name}
            cell = nbformat.v4.new_code_cell(source, id=name, metadata={"nbgrader": grader | ROLES[role], "tags": tags})
            book.cells.append(cell)
        path = tmp_path / "hw0" / "q0.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(book, path)
        (tmp_path / "hw0__q0.toml").write_text(written)
        return path, tmp_path / "hw0__q0.toml"

    return write


def entry(name, old, new, cell="f"):
    return f"[[mutant]]\nname = '{name}'\ncell = '{cell}'\nold = '''{old}'''\nnew = '''{new}'''\n"


def test_fates(course):
    written = [
        entry("killed", "x + 1", "x + 3"),
        entry("harmless", "x + 1", "1 + x"),
        entry("no such name", "x + 1", "y"),
        entry("looping", "    return", "    while True: pass\n    return"),
        entry("leaves", "    return", "    raise SystemExit(0)\n    return"),
        entry("dies", "    return", "    import os; os.abort()\n    return"),
        entry("hungry", "    return", "    bytearray(1 << 40)\n    return"),
    ]
    check = "class CheckError(AssertionError): pass\nif f(1) != 2: raise CheckError('2')"
    path, file = course(("solution", "f", FORMULA), ("test", "f_check", check), written="".join(written))
    result = mutate.run(path, file, least=1.0)
    assert result.outcomes == {
        "f:killed": "check",
        "f:harmless": "survived",
        "f:no such name": "error",
        "f:looping": "timeout",
        "f:leaves": "error",
        "f:dies": "error",
        "f:hungry": "error",
        "f:L2:flip_sign:0": "check",
        "f:L2:off_by_one:0": "check",
    }
    assert [m.key for m in result.survivors("hand")] == ["f:harmless"]
    assert "hand 6/7" in result.text() and "generated 2/2 (100 %)" in result.text()
    assert "before return x + 1\n    after  return 1 + x" in result.text()


def test_mutants_run_where_they_stand(course):
    """A later cell's mutant meets the earlier cells' true state, figure cells do not run, objects pickle."""
    path, file = course(
        ("locked", "a", "import pickle, dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int = 3"),
        ("solution", "b", "p = pickle.loads(pickle.dumps(P()))\nb = p.x + 1"),
        ("solution", "figure", "raise ValueError('drawn')", "figure"),
        ("solution", "c", "def c(t):\n    return b - t"),
        ("test", "check", "import inspect\nassert 'def c' in inspect.getsource(c)\nassert (b, c(1)) == (4, 3)"),
    )
    result = mutate.run(path, file)
    assert {m.cell for m in result.of("generated")} == {"b", "c"}
    assert not result.survivors("generated")


def test_gradients_after_a_fork(course):
    step = "import torch\nx = torch.ones(3, requires_grad=True)\n(x * x).sum().backward()"
    again = "def g(y):\n    (2 * y).sum().backward()\n    return y.grad"
    check = "assert g(torch.ones(3, requires_grad=True)).tolist() == [2.0] * 3"
    path, file = course(("locked", "a", step), ("solution", "g", again), ("test", "g_check", check))
    result = mutate.run(path, file)
    assert result.outcomes == {"g:L2:sum_mean:0": "error", "g:L2:drop_half:0": "error"}
    assert all("AssertionError" in detail for detail in result.details.values())


def test_mutants_that_are_lost_are_a_fault(course):
    written = entry("kills the runner", "    return", "    import os; os.kill(os.getppid(), 9)\n    return")
    path, file = course(("solution", "f", FORMULA), ("test", "f_check", CHECK), written=written)
    with pytest.raises(MutationError, match="ran the mutants of cell f died"):
        mutate.run(path, file)


def test_exit_status(course, monkeypatch, capsys):
    path, file = course(("solution", "f", FORMULA), ("test", "f_check", CHECK))
    monkeypatch.setattr(mutate, "mutant_file", lambda notebook: file)
    assert mutate.main([str(path)]) == 0
    file.write_text(entry("harmless", "x + 1", "1 + x"))
    assert mutate.main([str(path)]) == 1
    assert mutate.main([str(path), "--only", "generated"]) == 0
    assert "f:harmless" in capsys.readouterr().out
    file.write_text(entry("nowhere", "x + 2", "x"))
    assert mutate.main([str(path)]) == 2
    assert "occurs 0 times" in capsys.readouterr().err
    assert mutate.main(["no/such"]) == 2


def test_too_few_generated_killed(course, monkeypatch):
    path, file = course(("solution", "f", FORMULA), ("test", "f_check", "f(1)"))
    monkeypatch.setattr(mutate, "mutant_file", lambda notebook: file)
    assert mutate.main([str(path)]) == 1


def test_subset_takes_each_once(course):
    path, file = course(("solution", "f", "a = b = 1\nx = [a + 1, a - 1, a + b, -a]"))
    every = {m.key for m in mutate.mutants(path, file)}
    parts = [set(mutate.run(path, file, subset=(k, 3)).outcomes) for k in (3, 1, 5)]  # k may be a day of the year
    assert set.union(*parts) == every and sum(map(len, parts)) == len(every)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (entry("a", "x", "y"), "old occurs 2 times"),
        (entry("a", "z", "y"), "old occurs 0 times"),
        (entry("a", "x + 1", "x", cell="f_check"), "no solution cell"),
        (entry("a", "x + 1", "x + 1"), "the same"),
        (entry("a", "x + 1", "x") + entry("a", "x + 1", "1"), "twice"),
        ("[[mutant]]\nname = 'a'\n", "lacks"),
        ("[[mutants]]\nname = 'a'\n", "unknown tables"),
        ("[[equivalent]]\nkey = 'f:L9:flip_sign:0'\nwhy = 'no'\n", "no generated mutant has the key"),
    ],
)
def test_faulty_mutants(course, written, message):
    path, file = course(("solution", "f", FORMULA), ("test", "f_check", CHECK), written=written)
    with pytest.raises(MutationError, match=message):
        mutate.mutants(path, file)


def test_equivalents(course):
    written = "[[equivalent]]\nkey = 'f:L2:flip_sign:0'\nwhy = 'the second term is zero'\n"
    path, file = course(
        ("solution", "f", "def f(x):\n    return x + 0"), ("test", "c", "assert f(1) == 1"), written=written
    )
    result = mutate.run(path, file)
    assert not result.of("generated") and "the second term is zero" in result.text()
    path, file = course(("solution", "f", FORMULA), ("test", "c", CHECK), written=written)
    with pytest.raises(MutationError, match="is killed"):
        mutate.run(path, file)


def test_the_clock_is_no_proof_against_an_equivalent(course):
    written = "[[equivalent]]\nkey = 'f:L3:flip_sign:0'\nwhy = 'it takes longer, no more'\n"
    loop = "n = 5\nwhile n:\n    n -= 1"
    path, file = course(("solution", "f", loop), ("test", "c", "assert n == 0"), written=written)
    result = mutate.run(path, file, least=1.0)
    assert result.outcomes["f:L3:flip_sign:0"] == "timeout"
    assert "f:L3:flip_sign:0" not in {m.key for m in result.of("generated")}


def test_a_notebook_that_fails_unmutated(course):
    path, file = course(("solution", "f", FORMULA), ("test", "f_check", "assert f(1) == 3"))
    with pytest.raises(MutationError, match="itself does not pass.*f_check"):
        mutate.run(path, file)


@pytest.mark.skipif(not NOTEBOOKS, reason="no notebooks yet")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_notebook_notices(notebook: Path):
    """Every hand-written mutant dies, and at least 95 % of today's share of the generated ones."""
    if "data.load(" in notebook.read_text(encoding="utf-8") and not (folder("DGM_DATA", "data") / "MNIST").exists():
        pytest.skip("what trained models reach is judged on real data only, so mutants of it live on a stand-in")
    today = datetime.date.today().timetuple().tm_yday
    result = mutate.run(notebook, subset=(today, SHARE))
    assert len(result.of("hand")) >= 6, "wanted at least six hand-written mutants"
    assert not result.survivors("hand"), result.text()
    lost, total = len(result.survivors("generated")), len(result.of("generated"))
    assert lost <= max(1, (1 - mutate.REACH) * total), result.text()  # a small share: one may be a listed survivor
