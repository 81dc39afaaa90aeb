"""The fixed list of generated mutations: what each operator does to one node of a solution cell's syntax tree.

Not touched: imports, annotations, strings (but for `reduction="sum"`), f-strings, `print`, `raise`, calls on a figure
(`ax`, `axes`, `fig`, `plt`). Nothing about notebooks or running belongs here.
"""

import ast
import copy
from collections.abc import Callable, Iterator

FIGURES = {"ax", "axes", "axs", "fig", "plt"}
# The order of their first two arguments changes nothing, or they are not formulas.
COMMUTATIVE = set(
    "print range isinstance issubclass hasattr getattr max min maximum minimum fmax fmin add mul multiply "
    "dot inner equal eq ne allclose isclose logaddexp hypot gcd lcm transpose swapaxes mse_loss l1_loss "
    "smooth_l1_loss huber_loss union intersection logical_and logical_or".split()
)
# −1 given to these names an axis or a free size, not a sign.
AXES = set(
    "sum mean prod std var max min amax amin argmax argmin softmax log_softmax logsumexp cumsum cumprod "
    "cat stack concat flatten unflatten squeeze unsqueeze movedim transpose permute reshape view expand "
    "repeat norm flip select chunk split size gather sort topk diff any all expand_dims unbind "
    "index_select".split()
)
ONE_ARGUMENT = {
    "drop_sqrt": {"sqrt"},
    "drop_square": {"square"},
    "drop_log": {"log", "log2", "log10", "log1p"},
    "drop_exp": {"exp", "expm1"},
}


def candidates(source: str) -> Iterator[tuple[int, str, str]]:
    """Every single mutation of a cell: (line in the cell, operator, mutated source), in a fixed order, none twice.

    Raises SyntaxError when the cell does not parse.
    """
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for node, context, put in list(_sites(tree, ())):
        for operator, change in OPERATORS.items():
            for new in change(node, context):
                put(new)
                mutated = ast.unparse(ast.fix_missing_locations(tree))
                put(node)
                if mutated not in seen:
                    seen.add(mutated)
                    yield node.lineno, operator, mutated


Context = tuple[tuple[ast.AST, str], ...]  # the ancestors, outermost first, each with the field that leads on
Site = tuple[ast.AST, Context, Callable[[ast.AST], None]]


def _sites(parent: ast.AST, above: Context) -> Iterator[Site]:
    for name, value in ast.iter_fields(parent):
        if name in ("annotation", "returns", "msg", "decorator_list", "type_params"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or _skipped(node):
                continue
            here = (*above, (parent, name))
            if hasattr(node, "lineno"):
                yield node, here, _setter(parent, name, index if isinstance(value, list) else None)
            yield from _sites(node, here)


def _setter(parent: ast.AST, name: str, index: int | None) -> Callable[[ast.AST], None]:
    def put(new: ast.AST) -> None:
        if index is None:
            setattr(parent, name, new)
        else:
            getattr(parent, name)[index] = new

    return put


def _skipped(node: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Raise):
        return True
    return isinstance(node, ast.Call) and (_called(node) == "print" or _root(node.func) in FIGURES)


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _called(node: ast.AST) -> str:
    """The name of the function or method that a call calls, else ""."""
    func = node.func if isinstance(node, ast.Call) else None
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _is(node: ast.AST, number: float) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value == number


def _signed(node: ast.AST, context: Context) -> tuple[ast.AST, tuple[ast.AST, str]]:
    """The node with its sign, if it has one, and what that stands in."""
    signed = isinstance(context[-1][0], ast.UnaryOp)
    return (context[-1][0], context[-2]) if signed else (node, context[-1])


def _textual(node: ast.AST) -> bool:
    """Whether + or * on this joins or repeats text or lists."""
    if isinstance(node, ast.BinOp):
        return _textual(node.left) or _textual(node.right)
    text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    joined = ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp | ast.Dict
    return text or isinstance(node, joined) or _called(node) in ("str", "list", "tuple", "join", "sorted")


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _flip_sign(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """a + b ↔ a − b, also in +=; −a → a, where − is not that of an axis."""
    swap = {ast.Add: ast.Sub, ast.Sub: ast.Add}
    if isinstance(node, ast.BinOp) and type(node.op) in swap and not _textual(node):
        yield _with(node, op=swap[type(node.op)]())
    elif isinstance(node, ast.AugAssign) and type(node.op) in swap and not _textual(node.value):
        yield _with(node, op=swap[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        parent, name = context[-1]
        whole = isinstance(node.operand, ast.Constant) and type(node.operand.value) is int
        axis = name == "args" and _called(parent) in AXES
        axis |= isinstance(parent, ast.keyword) and (parent.arg or "") in ("dim", "axis", "dims", "axes")
        if not (whole and axis):
            yield node.operand


def _drop_half(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """0.5 → 1, a / 2 → a / 1, 2 a → a; exponents are drop_sqrt's and drop_square's."""
    parent, name = _signed(node, context)[1]
    power = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow) and name == "right"
    if _is(node, 0.5) and not power:
        yield ast.Constant(1.0)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _is(node.right, 2):
        yield _with(node, right=ast.Constant(1))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and not _textual(node):
        if _is(node.left, 2):
            yield node.right
        elif _is(node.right, 2):
            yield node.left
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div | ast.Mult) and _is(node.value, 2):
        yield _with(node, value=ast.Constant(1))


def _sum_mean(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """x.sum() ↔ x.mean(), also as a function; the built-in sum(x) → sum(x) / len(x); reduction="sum" ↔ "mean"."""
    swap = {"sum": "mean", "mean": "sum"}
    if isinstance(node, ast.keyword) and node.arg == "reduction" and isinstance(node.value, ast.Constant):
        if node.value.value in swap:
            yield _with(node, value=ast.Constant(swap[node.value.value]))
    elif isinstance(node, ast.Call) and _called(node) in swap:
        if isinstance(node.func, ast.Attribute):
            yield _with(node, func=_with(node.func, attr=swap[node.func.attr]))
        elif _called(node) == "mean":
            yield _with(node, func=ast.Name("sum", ast.Load()))
        else:
            average = ast.parse("(lambda xs, *start: sum(xs, *start) / len(xs))(list(x))", mode="eval").body
            average.args[0].args = node.args[:1]
            average.args += node.args[1:]
            yield average


def _swap_args(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """f(a, b, …) → f(b, a, …), unless f is on the list of those that do not care."""
    if isinstance(node, ast.Call) and len(node.args) >= 2 and _called(node) not in COMMUTATIVE:
        first, second, *rest = node.args
        starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
        if not starred and ast.dump(first) != ast.dump(second):
            yield _with(node, args=[second, first, *rest])


def _off_by_one(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """An integer in an index, a bound of range, arange or linspace, or the 1 of t ± 1: one more."""
    if not (isinstance(node, ast.Constant) and type(node.value) is int):
        return
    whole, (parent, name) = _signed(node, context)
    bound = _called(parent) in ("range", "arange", "linspace") and whole in parent.args[:2]
    sign = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add | ast.Sub) and node.value == 1
    shifted = sign and (name == "right" or isinstance(parent.op, ast.Add))
    if bound or shifted or _indexes(context):
        yield ast.Constant(node.value + 1)


def _indexes(context: Context) -> bool:
    """Whether the innermost call or subscript above the node is a subscript's index."""
    for parent, name in reversed(context):
        if isinstance(parent, ast.Call | ast.List | ast.Dict):
            return False
        if isinstance(parent, ast.Subscript):
            return name == "slice"
    return False


def _drop_call(operator: str) -> Callable[[ast.AST, Context], Iterator[ast.AST]]:
    def change(node: ast.AST, context: Context) -> Iterator[ast.AST]:
        if not isinstance(node, ast.Call):
            return
        inner = node.args[0] if node.args else node.func.value if isinstance(node.func, ast.Attribute) else None
        if inner is not None and _called(node) in ONE_ARGUMENT[operator]:
            yield inner

    return change


def _drop_sqrt(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """√x → x, x.rsqrt() → 1 / x, x ** ±0.5 → x ** ±1."""
    yield from _drop_call("drop_sqrt")(node, context)
    if isinstance(node, ast.Call) and _called(node) == "rsqrt":
        inner = node.args[0] if node.args else node.func.value
        yield ast.BinOp(ast.Constant(1), ast.Div(), inner)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        minus = isinstance(node.right, ast.UnaryOp)
        if _is(node.right.operand if minus else node.right, 0.5):
            one = ast.Constant(1)
            yield _with(node, right=ast.UnaryOp(ast.USub(), one) if minus else one)


def _drop_square(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """x ** 2, x.square(), x.pow(2) → x."""
    yield from _drop_call("drop_square")(node, context)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and _is(node.right, 2):
        yield _with(node, right=ast.Constant(1))
    elif _called(node) in ("pow", "power") and node.args and _is(node.args[-1], 2):
        yield node.args[0] if len(node.args) > 1 else node.func.value


def _drop_detach(node: ast.AST, context: Context) -> Iterator[ast.AST]:
    """x.detach() → x."""
    if _called(node) == "detach" and isinstance(node.func, ast.Attribute):
        yield node.func.value


OPERATORS: dict[str, Callable[[ast.AST, Context], Iterator[ast.AST]]] = {
    "flip_sign": _flip_sign,
    "drop_half": _drop_half,
    "sum_mean": _sum_mean,
    "swap_args": _swap_args,
    "off_by_one": _off_by_one,
    "drop_sqrt": _drop_sqrt,
    "drop_square": _drop_square,
    "drop_detach": _drop_detach,
    "drop_log": _drop_call("drop_log"),
    "drop_exp": _drop_call("drop_exp"),
}
