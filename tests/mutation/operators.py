"""The mutations: each takes one node and yields replacements of parts of the text."""

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from .source import Source

Change = tuple[int, int, str]
Operator = Callable[[Source, Any], Iterator[Change]]
OPERATORS: dict[str, tuple[tuple[type[ast.AST], ...], Operator]] = {}

ATOMS = (ast.Name, ast.Constant, ast.Call, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Dict)
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.FloorDiv: "/"}
LOGIC = {ast.BitAnd: "|", ast.BitOr: "&", ast.BitXor: "&", ast.And: "or", ast.Or: "and"}
TOKENS: dict[Any, str] = {
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.FloorDiv: "//"},
    **{ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.And: "and", ast.Or: "or"},
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
    **{ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"},
}
BOUNDS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
OPPOSITES = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "is": "is not", "in": "not in"}
OPPOSITES |= {b: a for a, b in OPPOSITES.items() if a in ("==", "is", "in")}
FUNCTIONS = {
    **{"zeros_like": "ones_like", "ones_like": "zeros_like", "zeros": "ones", "ones": "zeros", "Ones": "Zeros"},
    **{"any": "all", "all": "any", "min": "max", "max": "min", "argmax": "argmin", "isfinite": "isnan"},
    **{"sum": "mean", "mean": "sum", "log1p": "log", "log": "log1p", "exp": "expm1", "sin": "cos"},
}
UNWRAPPED = ("sqrt", "abs", "exp", "reversed", "sorted", "reshape", "astype")  # f(x, ...) becomes x
# Calls where other orders of the arguments are errors of type or mean the same.
UNSWAPPED = ("isinstance", "issubclass", "getattr", "zip", "isdtype", "astype", "reshape", "take", "InputError")
UNSWAPPED += ("vector_of", "alignment_of", "absent")
OPTIONAL = ("axis", "keepdims", "dtype", "copy", "adds", "into", "clip", "frozen", "dx")  # keywords that have a default


def operator(name: str, *kinds: type[ast.AST]) -> Callable[[Operator], Operator]:
    def register(function: Operator) -> Operator:
        OPERATORS[name] = (kinds, function)
        return function

    return register


def _wrapped(source: Source, node: ast.AST) -> str:
    text = source.text_of(node)
    return text if isinstance(node, ATOMS) else f"({text})"


def _token(source: Source, left: ast.AST, right: ast.AST, op: ast.AST, new: str) -> Iterator[Change]:
    """Another token between two operands."""
    start, end = source.span(left)[1], source.span(right)[0]
    old = TOKENS[type(op)]
    pattern = r"\s+".join(map(re.escape, old.split()))
    if old[0].isalpha():
        pattern = rf"(?<!\w){pattern}(?!\w)"
    found = re.search(pattern, source.between(start, end))
    if found:
        at = start + len(source.between(start, end)[: found.start()].encode())
        yield at, at + len(found.group().encode()), new


def swapped(source: Source, a: ast.AST, b: ast.AST) -> Iterator[Change]:
    if source.text_of(a) != source.text_of(b):
        (start, mid), (mid2, end) = source.span(a), source.span(b)
        yield start, end, source.text_of(b) + source.between(mid, mid2) + source.text_of(a)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


@operator("sign", ast.BinOp, ast.UnaryOp, ast.AugAssign)
def sign(source: Source, node: Any) -> Iterator[Change]:
    """+ for -, * for /, and the like; a unary minus dropped."""
    if isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub):
            yield *source.span(node), _wrapped(source, node.operand)
    elif type(node.op) in ARITHMETIC:
        if isinstance(node, ast.AugAssign):
            old = TOKENS[type(node.op)] + "="
            start = source.span(node.target)[1]
            at = source.data.index(old.encode(), start)
            yield at, at + len(old), ARITHMETIC[type(node.op)] + "="
        elif not (_is_text(node.left) or _is_text(node.right)):
            yield from _token(source, node.left, node.right, node.op, ARITHMETIC[type(node.op)])


@operator("logic", ast.BinOp, ast.BoolOp)
def logic(source: Source, node: Any) -> Iterator[Change]:
    """`or` for `and`, | for &."""
    if type(node.op) in LOGIC:
        operands = node.values if isinstance(node, ast.BoolOp) else [node.left, node.right]
        for left, right in pairwise(operands):
            yield from _token(source, left, right, node.op, LOGIC[type(node.op)])


@operator("bound", ast.Compare)
def bound(source: Source, node: Any) -> Iterator[Change]:
    """<= for <, and the like."""
    yield from _compared(source, node, BOUNDS)


@operator("opposite", ast.Compare)
def opposite(source: Source, node: Any) -> Iterator[Change]:
    """>= for <, `is not` for `is`, and the like."""
    yield from _compared(source, node, OPPOSITES)


def _compared(source: Source, node: Any, table: dict[str, str]) -> Iterator[Change]:
    operands = [node.left, *node.comparators]
    for left, op, right in zip(operands, node.ops, node.comparators, strict=False):
        new = table.get(TOKENS[type(op)])
        if new is not None:
            yield from _token(source, left, right, op, new)


@operator("not dropped", ast.UnaryOp)
def not_dropped(source: Source, node: Any) -> Iterator[Change]:
    if isinstance(node.op, ast.Not | ast.Invert):
        yield *source.span(node), _wrapped(source, node.operand)


@operator("condition", ast.If, ast.IfExp)
def condition(source: Source, node: Any) -> Iterator[Change]:
    """A condition that is no comparison, negated; one branch of a conditional expression, always."""
    if not isinstance(node.test, ast.Compare | ast.UnaryOp | ast.NamedExpr):
        yield *source.span(node.test), f"not {_wrapped(source, node.test)}"
    if isinstance(node, ast.IfExp) and not (_is_text(node.body) or _is_text(node.orelse)):
        yield *source.span(node), _wrapped(source, node.body)
        yield *source.span(node), _wrapped(source, node.orelse)


@operator("constant", ast.Constant)
def constant(source: Source, node: Any) -> Iterator[Change]:
    """Another number: 0 to 1, 1 to 2 and 0, n to n + 1, a share to its half, what is tiny to ten times that."""
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        for value in _other_numbers(node.value):
            yield *source.span(node), repr(value)


def _other_numbers(value: float) -> list[float]:
    if value in (0, 1):
        return [type(value)(new) for new in ((1,) if value == 0 else (2, 0))]
    if isinstance(value, int):
        return [value + 1]
    return [value * 10 if value < 1e-3 else value / 2 if value < 1 else value * 2]


@operator("flag", ast.Constant)
def flag(source: Source, node: Any) -> Iterator[Change]:
    """False for True: keepdims, adds, decays, defaults of switches."""
    if isinstance(node.value, bool):
        yield *source.span(node), repr(not node.value)


@operator("default", ast.arguments, ast.AnnAssign)
def default(source: Source, node: Any) -> Iterator[Change]:
    """A default among named choices becomes the next choice. Numbers and switches belong to other operators."""
    if isinstance(node, ast.AnnAssign):
        pairs = [(node.annotation, node.value)]
    else:
        positional = node.posonlyargs + node.args
        pairs = [(a.annotation, d) for a, d in zip(positional[::-1], node.defaults[::-1], strict=False)]
        pairs += [(a.annotation, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
    for annotation, value in pairs:
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and annotation is not None:
            choices = re.findall(r"'([^']*)'", ast.unparse(annotation))
            if value.value in choices and len(choices) > 1:
                yield *source.span(value), repr(choices[(choices.index(value.value) + 1) % len(choices)])


@operator("dropped term", ast.BinOp, ast.BoolOp)
def dropped_term(source: Source, node: Any) -> Iterator[Change]:
    """One operand of a sum, product or condition left out."""
    if isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            kept = [_wrapped(source, value) for j, value in enumerate(node.values) if j != i]
            yield *source.span(node), f" {TOKENS[type(node.op)]} ".join(kept)
    elif type(node.op) in (*ARITHMETIC, ast.BitAnd, ast.BitOr) and not (_is_text(node.left) or _is_text(node.right)):
        yield *source.span(node), _wrapped(source, node.left)
        if type(node.op) in (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr):
            yield *source.span(node), _wrapped(source, node.right)


@operator("dropped statement", ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Continue)
def dropped_statement(source: Source, node: Any) -> Iterator[Change]:
    """A call for its effect, a write into an array, a second binding of a name, an error: left out."""
    if isinstance(node, ast.Assign) and not _is_rebinding(source, node):
        return
    yield *source.span(node), "pass"


def _is_rebinding(source: Source, node: ast.Assign) -> bool:
    """Whether the code runs on without this assignment; without the first binding of a name it plainly does not."""
    target, function = node.targets[0], source.enclosing(node, ast.FunctionDef)
    if function is None:
        return False
    if isinstance(target, ast.Name):
        known = {arg.arg for arg in ast.walk(function) if isinstance(arg, ast.arg)}
        before = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        return target.id in known or any(n.id == target.id and n.lineno < node.lineno for n in before)
    if isinstance(target, ast.Attribute):
        return function.name != "__init__"
    return isinstance(target, ast.Subscript)


@operator("swapped arguments", ast.Call)
def swapped_arguments(source: Source, node: Any) -> Iterator[Change]:
    """Two neighboring arguments of a call; of `where` its two branches."""
    name = ast.unparse(node.func).rpartition(".")[2]
    if name in UNSWAPPED or any(map(_is_text, node.args[:1])):
        return
    arguments = node.args[1:] if name == "where" else node.args
    for a, b in pairwise(arguments):
        if not isinstance(a, ast.Starred) and not isinstance(b, ast.Starred):
            yield from swapped(source, a, b)


@operator("swapped elements", ast.Tuple)
def swapped_elements(source: Source, node: Any) -> Iterator[Change]:
    """Two neighbors of a tuple, where their order has a meaning."""
    parent = source.parents[node]
    loop = isinstance(parent, ast.For | ast.comprehension) and node is parent.iter
    member = isinstance(parent, ast.Compare) and node is not parent.left
    if isinstance(node.ctx, ast.Load) and not loop and not member:
        for a, b in pairwise(node.elts):
            if not isinstance(a, ast.Starred) and not isinstance(b, ast.Starred):
                yield from swapped(source, a, b)


@operator("other field", ast.Attribute)
def other_field(source: Source, node: Any) -> Iterator[Change]:
    """The next field of the same named tuple."""
    parent = source.parents[node]
    called = isinstance(parent, ast.Call) and parent.func is node
    if (
        isinstance(node.ctx, ast.Load)
        and node.attr in source.records
        and ast.unparse(node.value) != "self"
        and not called
    ):
        end = source.span(node)[1]
        yield end - len(node.attr), end, source.records[node.attr]


@operator("slice", ast.Slice)
def slice_(source: Source, node: Any) -> Iterator[Change]:
    """An end of a slice moved by one."""
    for end in (node.lower, node.upper):
        if isinstance(end, ast.Constant):
            yield *source.span(end), repr(end.value + 1)
        elif end is not None:
            yield *source.span(end), f"{_wrapped(source, end)} + 1"
            yield *source.span(end), f"{_wrapped(source, end)} - 1"


@operator("other function", ast.Call)
def other_function(source: Source, node: Any) -> Iterator[Change]:
    """zeros for ones, any for all, mean for sum; a root, a modulus or a conversion left out."""
    name = ast.unparse(node.func).rpartition(".")[2]
    end = source.span(node.func)[1]
    if name in FUNCTIONS and not (name in ("sum", "mean") and isinstance(node.func, ast.Name)):
        yield end - len(name), end, FUNCTIONS[name]
    if name in UNWRAPPED and node.args:
        yield *source.span(node), _wrapped(source, node.args[0])


@operator("dropped keyword", ast.Call)
def dropped_keyword(source: Source, node: Any) -> Iterator[Change]:
    """axis, dtype, copy, into ... back to the default."""
    for keyword in node.keywords:
        if keyword.arg in OPTIONAL and not ast.unparse(node.func).startswith("op"):
            start, end = source.span(keyword)
            before = source.data[:start].rstrip()
            comma = re.match(rb"\s*,\s*", source.data[end:])
            if before.endswith(b","):
                yield len(before) - 1, end, ""
            elif comma:
                yield start, end + comma.end(), ""


@operator("dropped entry", ast.Dict)
def dropped_entry(source: Source, node: Any) -> Iterator[Change]:
    """One entry of a dictionary left out."""
    if len(node.keys) != len([key for key in node.keys if key is not None]):
        return
    for i, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
        start, end = source.span(key)[0], source.span(value)[1]
        if i + 1 < len(node.keys):
            yield start, source.span(node.keys[i + 1])[0], ""
        elif i:
            yield source.span(node.values[i - 1])[1], end, ""
        else:
            yield start, end, ""
