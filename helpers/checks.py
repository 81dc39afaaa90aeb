"""Claims that a notebook makes and proves by running: claim, value, reference, tolerance, verdict.

A check prints one line and raises CheckError when it fails, saying both numbers. What is computed does not belong here.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape

MIME = "application/vnd.dgm.checks+json"


class CheckError(AssertionError):
    """A claim that did not hold."""


@dataclass(frozen=True)
class Record:
    """One check. `margin` is the share of the tolerance left (1: exact, 0: on the bound)."""

    part: str
    claim: str
    value: str
    reference: str
    tolerance: str
    because: str
    margin: float | None
    verdict: str


def _number(value: object, claim: str) -> float:
    """Types before values: an object that is equal to everything is not a number."""
    if hasattr(value, "item") and getattr(value, "numel", lambda: getattr(value, "size", 1))() == 1:
        value = value.item()  # type: ignore[attr-defined]
    if type(value) not in (int, float):
        raise CheckError(f"{claim}: got {type(value).__name__}, wanted one number")
    return float(value)


@dataclass
class Checks:
    """The checks of one notebook, in the order made. `points` gives the points of each lettered part."""

    notebook: str
    points: dict[str, float] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def close(
        self,
        part: str,
        claim: str,
        value: object,
        reference: object,
        tolerance: float,
        because: str,
    ) -> None:
        """|value − reference| ≤ tolerance, for numbers or equally long sequences and tensors of numbers.

        `because` says where the tolerance comes from ("4 standard errors", "float64 rounding", …).
        Raises CheckError for a mismatch, a non-finite number or another shape.
        """
        values, references = _flat(value, claim), _flat(reference, claim)
        if len(values) != len(references):
            raise CheckError(f"{claim}: {len(values)} values against {len(references)} references")
        if not values:
            raise CheckError(f"{claim}: nothing to compare")
        gaps = [abs(a - b) for a, b in zip(values, references, strict=True)]
        bad = [i for i, gap in enumerate(gaps) if not gap <= tolerance]  # not: NaN must fail
        worst = bad[0] if bad else gaps.index(max(gaps))
        shown = f"{values[worst]:.6g}", f"{references[worst]:.6g}"
        many = f" (worst of {len(values)})" if len(values) > 1 else ""
        self._record(part, claim, *shown, f"± {tolerance:.2g}", because, _margin(gaps[worst], tolerance), not bad, many)

    def standard_errors(
        self, part: str, claim: str, estimate: object, exact: object, error: object, bound: float = 4.0
    ) -> None:
        """|estimate − exact| ≤ bound · error: a Monte Carlo estimate against an exact value.

        `error` is the estimate's standard error; 4 of them mean a false alarm in 1 of 16,000 fresh seeds.
        """
        error = _number(error, claim)
        if not (math.isfinite(error) and error > 0):
            raise CheckError(f"{claim}: standard error {error}, wanted a positive number")
        self.close(part, claim, estimate, exact, bound * error, f"{bound:g} standard errors")

    def below(self, part: str, claim: str, value: object, bound: object, because: str) -> None:
        """value ≤ bound."""
        value, bound = _number(value, claim), _number(bound, claim)
        self._record(part, claim, f"{value:.6g}", f"≤ {bound:.6g}", "bound", because, None, value <= bound)

    def above(self, part: str, claim: str, value: object, bound: object, because: str) -> None:
        """value ≥ bound."""
        value, bound = _number(value, claim), _number(bound, claim)
        self._record(part, claim, f"{value:.6g}", f"≥ {bound:.6g}", "bound", because, None, value >= bound)

    def equal(self, part: str, claim: str, value: object, reference: object) -> None:
        """value == reference exactly, of the same built-in type (int, bool, str, tuple, set, dict, …)."""
        if type(value) is not type(reference) or type(value).__module__ != "builtins":
            raise CheckError(f"{claim}: got {type(value).__name__}, wanted {type(reference).__name__}")
        self._record(part, claim, str(value), str(reference), "exact", "discrete", 1.0, value == reference)

    def fails(self, part: str, claim: str, value: object, reference: object, tolerance: float) -> None:
        """A wrong version must be off by more than the tolerance: shows that the check above can fail."""
        gaps = [abs(a - b) for a, b in zip(_flat(value, claim), _flat(reference, claim), strict=True)]
        gap = max(gaps)
        self._record(
            part,
            claim,
            f"{gap:.6g} off",
            f"> {tolerance:.2g}",
            "wrong version",
            "must fail",
            None,
            gap > tolerance,
        )

    def reach(self, part: str, claim: str, value: object, bound: object, real: bool, higher: bool = True) -> None:
        """A figure that the shipped model must reach on real data; on a stand-in it is recorded, not judged."""
        if real:
            (self.above if higher else self.below)(part, claim, value, bound, "reach figure of the course")
        else:
            value, bound = _number(value, claim), _number(bound, claim)
            self.records.append(
                Record(
                    part,
                    claim,
                    f"{value:.6g}",
                    f"{bound:.6g}",
                    "real data only",
                    "stand-in",
                    None,
                    "not judged",
                )
            )
            print(f"– {claim}: {value:.6g}, not judged on a stand-in")

    def report(self, expected: int) -> None:
        """The closing table. Raises CheckError unless exactly `expected` checks were made: all cells ran."""
        if len(self.records) != expected:
            raise CheckError(
                f"{self.notebook}: {len(self.records)} checks were made, {expected} expected: "
                "a cell was skipped or run twice; restart the kernel and run all cells"
            )
        from IPython.display import display

        passed = sum(r.verdict == "✓" for r in self.records)
        data = {
            "notebook": self.notebook,
            "passed": passed,
            "expected": expected,
            "points": self.points,
            "records": [asdict(r) for r in self.records],
        }
        display({MIME: data, "text/plain": _text(self.records), "text/html": _html(self.records)}, raw=True)

    def _record(
        self,
        part: str,
        claim: str,
        value: str,
        reference: str,
        tolerance: str,
        because: str,
        margin: float | None,
        passed: bool,
        note: str = "",
    ) -> None:
        if part not in self.points:
            raise ValueError(f"part {part!r} is not among the parts with points: {sorted(self.points)}")
        if not passed:
            raise CheckError(f"✗ {claim}: {value} against {reference}, {tolerance} ({because}){note}")
        self.records.append(Record(part, claim, value, reference, tolerance, because, margin, "✓"))
        print(f"✓ {claim}: {value} vs {reference} {tolerance if tolerance[0] == '±' else ''}{note}".rstrip())


def _flat(value: object, claim: str) -> list[float]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [x for v in value for x in _flat(v, claim)]
    return [_number(value, claim)]


def _margin(gap: float, tolerance: float) -> float:
    return 1.0 if gap == 0 else 1 - gap / tolerance if tolerance > 0 else 0.0


_HEAD = ("part", "claim", "value", "reference", "tolerance", "margin", "verdict")


def _rows(records: list[Record]) -> list[tuple[str, ...]]:
    return [
        (
            r.part,
            r.claim,
            r.value,
            r.reference,
            f"{r.tolerance} ({r.because})",
            "" if r.margin is None else f"{100 * r.margin:.0f} %",
            r.verdict,
        )
        for r in records
    ]


def _text(records: list[Record]) -> str:
    return "\n".join(" | ".join(row) for row in [_HEAD, *_rows(records)])


def _html(records: list[Record]) -> str:
    head = "".join(f"<th>{h}</th>" for h in _HEAD)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in _rows(records))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
