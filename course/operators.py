"""Generated mutants: a fixed list of small mistakes, applied one at a time to the source of a solution cell."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# calls whose first two arguments may change places without harm, or are not mathematics
COMMUTATIVE = {"maximum", "minimum", "max", "min", "add", "mul", "equal", "allclose", "isclose", "logaddexp", "gcd"}
NOT_MATHEMATICS = {"print", "isinstance", "getattr", "setattr", "hasattr", "zip", "range", "dict", "super", "format"}
PLOTS = {"ax", "axes", "plt", "fig", "plots", "tables", "widgets", "checks"}
DROPPED = {"sqrt": "drop_sqrt", "log": "drop_log", "exp": "drop_exp", "detach": "drop_detach", "square": "drop_square"}
ONE = {"sqrt", "log", "exp"}  # also as functions of one argument: torch.sqrt(x), math.log(x)


@dataclass(frozen=True)
class Mutant:
    """One wrong version of a cell: `key` is stable, `line` (from 1) is where, before and after are its text."""

    key: str
    cell: str
    source: str
    line: int
    before: str
    after: str


def generate(cell: str, source: str) -> list[Mutant]:
    """All generated mutants of a cell's source; those that do not change the parsed program are left out."""
    tree = ast.parse(source)
    _link(tree)
    result, counts, plain = [], {}, ast.unparse(tree)
    for index, node in enumerate(ast.walk(tree)):
        if not hasattr(node, "lineno") or _passed_over(node):
            continue
        for operator, change in _changes(node):
            twin = copy.deepcopy(tree)
            _link(twin)
            change(next(n for k, n in enumerate(ast.walk(twin)) if k == index))
            mutated = ast.unparse(ast.fix_missing_locations(twin))
            if mutated == plain:
                continue
            key = f"{cell}:L{node.lineno}:{operator}"
            counts[key] = counts.get(key, -1) + 1
            before, after = _difference(plain, mutated)
            result.append(Mutant(f"{key}:{counts[key]}", cell, mutated, node.lineno, before, after))
    return result


def _link(tree: ast.AST) -> None:
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            child.parent = parent  # type: ignore[attr-defined]


def _passed_over(node: ast.AST) -> bool:
    """Inside a docstring, an f-string, an annotation, an import, or a call that draws, prints or raises."""
    child = node
    while (parent := getattr(child, "parent", None)) is not None:
        if isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Raise | ast.arg):
            return True
        if isinstance(child, ast.Call) and _root(child.func) in PLOTS | {"print"}:
            return True
        if isinstance(parent, ast.AnnAssign) and parent.annotation is child:
            return True
        child = parent
    return False


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is(node: ast.AST, *values: float) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in values


def _sequence(node: ast.AST) -> bool:
    return isinstance(node, ast.List | ast.Tuple | ast.ListComp | ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _become(node: ast.AST, other: ast.AST) -> None:
    """Put `other` in the place of `node`."""
    parent = node.parent  # type: ignore[attr-defined]
    for name, value in ast.iter_fields(parent):
        if value is node:
            setattr(parent, name, other)
        elif isinstance(value, list) and any(v is node for v in value):
            value[[v is node for v in value].index(True)] = other


def _set(name: str, value: object) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, name, value)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
        sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
        if not any(_sequence(side) for side in sides):
            yield "flip_sign", _set("op", ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not _index(node):
        yield "flip_sign", lambda n: _become(n, n.operand)
    if _is(node, 0.5) and isinstance(node.value, float):
        yield "drop_half", _set("value", 1.0)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Div) and _is(node.right, 2):
            yield "drop_half", lambda n: _become(n, n.left)
        if isinstance(node.op, ast.Mult) and _is(node.left, 2):
            yield "drop_half", lambda n: _become(n, n.right)
        if isinstance(node.op, ast.Mult) and _is(node.right, 2):
            yield "drop_half", lambda n: _become(n, n.left)
        if isinstance(node.op, ast.Pow) and _is(node.right, 2):
            yield "drop_square", lambda n: _become(n, n.left)
        if isinstance(node.op, ast.Pow) and _is(node.right, 0.5):
            yield "drop_sqrt", lambda n: _become(n, n.left)
        if isinstance(node.op, ast.Add | ast.Sub) and isinstance(node.left, ast.Name) and _is(node.right, 1):
            yield "off_by_one", lambda n: _become(n, n.left)
    if isinstance(node, ast.Call):
        yield from _call_changes(node)
    if isinstance(node, ast.Constant) and type(node.value) is int and (_index(node) or _bound(node)):
        yield "off_by_one", _set("value", node.value + 1)


def _call_changes(node: ast.Call) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    name = _name(node)
    if name in ("sum", "mean"):
        other = "mean" if name == "sum" else "sum"
        if isinstance(node.func, ast.Attribute):
            yield "sum_mean", lambda n: setattr(n.func, "attr", other)
    if len(node.args) >= 2 and name not in COMMUTATIVE | NOT_MATHEMATICS:
        first, second = node.args[:2]
        if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            if ast.dump(first) != ast.dump(second):
                yield "swap_args", lambda n: n.args.__setitem__(slice(0, 2), n.args[1::-1])
    if name in DROPPED and isinstance(node.func, ast.Attribute) and not node.args:
        yield DROPPED[name], lambda n: _become(n, n.func.value)
    if name in ONE and len(node.args) == 1:
        yield DROPPED[name], lambda n: _become(n, n.args[0])


def _index(node: ast.AST) -> bool:
    """A plain number in square brackets: x[1], x[:, 2:]; also below a minus sign."""
    parent = getattr(node, "parent", None)
    while isinstance(parent, ast.Slice | ast.Tuple | ast.UnaryOp):
        node, parent = parent, parent.parent  # type: ignore[attr-defined]
    return isinstance(parent, ast.Subscript) and parent.slice is node


def _bound(node: ast.AST) -> bool:
    parent = getattr(node, "parent", None)
    return isinstance(parent, ast.Call) and _name(parent) in ("range", "arange") and node in parent.args


def _difference(before: str, after: str) -> tuple[str, str]:
    for a, b in zip(before.splitlines(), after.splitlines(), strict=False):
        if a != b:
            return a.strip(), b.strip()
    return "", ""
