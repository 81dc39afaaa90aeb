"""A check must hold for what is true and fail for everything else."""

import pytest
import torch

from helpers.checks import MIME, CheckError, Checks


@pytest.fixture
def checks():
    return Checks("a notebook", points={"a": 1})


def test_close_passes_inside_and_fails_outside(checks):
    checks.close("a", "claim", 1.0, 1.05, 0.1, "why")
    with pytest.raises(CheckError, match=r"claim: 1 against 1\.2"):
        checks.close("a", "claim", 1.0, 1.2, 0.1, "why")
    assert len(checks.records) == 1 and checks.records[0].margin == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_number_that_is_not_finite_never_passes(checks, bad):
    with pytest.raises(CheckError):
        checks.close("a", "claim", bad, 1.0, 1e9, "why")
    with pytest.raises(CheckError):
        checks.standard_errors("a", "claim", 1.0, 1.0, bad)
    if bad != bad:
        for judge in (checks.below, checks.above):
            with pytest.raises(CheckError):
                judge("a", "claim", bad, 1.0, "why")


def test_tensors_compare_element_by_element_and_shapes_must_match(checks):
    checks.close("a", "claim", torch.ones(3), [1, 1, 1], 0, "exact")
    with pytest.raises(CheckError, match="worst of 3"):
        checks.close("a", "claim", torch.ones(3), [1, 1, 2], 0.5, "why")
    with pytest.raises(CheckError, match="3 values against 2"):
        checks.close("a", "claim", torch.ones(3), [1, 1], 1, "why")
    with pytest.raises(CheckError, match="nothing"):
        checks.close("a", "claim", [], [], 1, "why")


def test_an_object_equal_to_everything_is_not_a_number(checks):
    class Equal:
        def __eq__(self, other):
            return True

        def __abs__(self):
            return 0

        __sub__ = __rsub__ = __float__ = lambda self, *_: 0.0

    for call in (lambda: checks.close("a", "c", Equal(), 1, 1, "w"), lambda: checks.equal("a", "c", Equal(), 1)):
        with pytest.raises(CheckError):
            call()


def test_equal_wants_the_same_type(checks):
    checks.equal("a", "claim", True, True)
    for value, reference in ((1, True), ("1", 1), (False, True)):
        with pytest.raises(CheckError):
            checks.equal("a", "claim", value, reference)


def test_standard_error_bound(checks):
    checks.standard_errors("a", "claim", 1.3, 1.0, 0.1)
    with pytest.raises(CheckError):
        checks.standard_errors("a", "claim", 1.5, 1.0, 0.1)
    with pytest.raises(CheckError, match="positive"):
        checks.standard_errors("a", "claim", 1.0, 1.0, 0.0)


def test_bounds_and_wrong_versions(checks):
    checks.below("a", "claim", 1, 2, "why")
    checks.above("a", "claim", 2, 1, "why")
    checks.fails("a", "claim", 1.0, 2.0, 0.1)
    for call in (
        lambda: checks.below("a", "claim", 2, 1, "why"),
        lambda: checks.above("a", "claim", 1, 2, "why"),
        lambda: checks.fails("a", "claim", 1.0, 1.01, 0.1),
    ):
        with pytest.raises(CheckError):
            call()


def test_reach_is_judged_on_real_data_only(checks):
    checks.reach("a", "claim", 0.5, 0.9, real=False)
    assert checks.records[-1].verdict == "not judged"
    with pytest.raises(CheckError):
        checks.reach("a", "claim", 0.5, 0.9, real=True)
    with pytest.raises(CheckError):
        checks.reach("a", "claim", 0.9, 0.5, real=True, higher=False)


def test_unknown_part_is_refused(checks):
    with pytest.raises(ValueError, match="part 'z'"):
        checks.equal("z", "claim", 1, 1)


def test_report_wants_every_check(checks, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    checks.equal("a", "<claim>", 1, 1)
    with pytest.raises(CheckError, match="1 checks were made, 2 expected"):
        checks.report(expected=2)
    checks.report(expected=1)
    assert shown[0][MIME]["passed"] == 1 and "&lt;claim&gt;" in shown[0]["text/html"]
