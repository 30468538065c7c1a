"""The mutations of kernels: each takes one node and yields replacements of parts of the text."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from tree_sitter import Node

from .kernel_source import KernelSource
from .operators import BOUNDS, Change

KernelOperator = Callable[[KernelSource, Node], Iterator[Change]]
KERNEL_OPERATORS: dict[str, tuple[tuple[str, ...], KernelOperator]] = {}

BARRIERS = ("__syncthreads", "__syncwarp", "__threadfence", "__threadfence_block")
OPPOSITES = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
SIGNS = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<<": ">>", ">>": "<<"}
SIGNS |= {f"{mark}=": f"{SIGNS[mark]}=" for mark in "+-*/"}
LOGIC = {"&&": "||", "||": "&&", "&": "|", "|": "&", "^": "&"}
COMMUTING = ("+", "*", "&&", "||", "&", "|", "^")
NAMED = re.compile(r"k[A-Z]\w*")  # constants of the kernels
SIBLINGS = {"kLanes": "kWarps", "kWarps": "kLanes", "kThreads": "kLanes", "kAllLanes": "0x7fffffffu"}
WIDTHS = ("VEC", "N", "GROUP", "COUNT")  # template parameters that count
ADDRESSED = ("load", "store", "store_or_add", "load_slot", "store_slot", "__ldcg", "read_statistic", "write_statistic")
SHUFFLES = {"__shfl_xor_sync": "__shfl_down_sync", "__shfl_down_sync": "__shfl_up_sync"}
FUNCTIONS = {
    **SHUFFLES,
    **{"log_of_one_plus": "logarithm", "block_sum": "warp_sum", "finite": "!finite"},
    **dict.fromkeys(("warp_sum", "square_root", "magnitude", "exponential", "activate", "merged", "quotient"), ""),
}
AXES = {"x": "y", "y": "x"}
BUILTIN = ("threadIdx", "blockIdx", "blockDim", "gridDim")


def operator(name: str, *kinds: str) -> Callable[[KernelOperator], KernelOperator]:
    def register(function: KernelOperator) -> KernelOperator:
        KERNEL_OPERATORS[name] = kinds, function
        return function

    return register


def _to(node: Node, after: str) -> Change:
    return node.start_byte, node.end_byte, after


def _mark(node: Node) -> Node:
    """The operator between or before operands."""
    return _field(node, "operator")


def _field(node: Node, name: str) -> Node:
    child = node.child_by_field_name(name)
    assert child is not None, f"{node.type} has no {name}"
    return child


def _is_plain(node: Node) -> bool:
    """Whether there is no operator with two or more operands outside of brackets."""
    return node.type not in ("binary_expression", "conditional_expression", "assignment_expression", "comma_expression")


def _bracketed(source: KernelSource, node: Node) -> str:
    return source.text_of(node) if _is_plain(node) else f"({source.text_of(node)})"


def _is_a_step(node: Node) -> bool:
    """Whether it is the step of a loop: another one would only run for ever."""
    while node.parent is not None and node.parent.type != "for_statement":
        if node.parent.type.endswith("statement"):
            return False
        node = node.parent
    return node.parent is not None and node == node.parent.child_by_field_name("update")


@operator("barrier dropped", "expression_statement")
def barrier_dropped(source: KernelSource, node: Node) -> Iterator[Change]:
    """A barrier or a fence is not there."""
    if node.named_children and source.called(node.named_children[0]) in BARRIERS:
        yield _to(node, ";")


def _replaced(table: dict[str, str]) -> KernelOperator:
    def change(source: KernelSource, node: Node) -> Iterator[Change]:
        mark = _mark(node)
        if source.text_of(mark) in table:
            yield _to(mark, table[source.text_of(mark)])

    return change


bound = operator("bound", "binary_expression")(_replaced(BOUNDS))  # <= for <, and the like
opposite = operator("opposite", "binary_expression")(_replaced(OPPOSITES))  # >= for <, != for ==, and the like


@operator("sign", "binary_expression", "assignment_expression", "unary_expression", "number_literal")
def sign(source: KernelSource, node: Node) -> Iterator[Change]:
    """+ for -, * for /, << for >>, -= for +=; a minus before an operand dropped."""
    if node.type == "number_literal":
        if source.text_of(node)[0] == "-":
            yield node.start_byte, node.start_byte + 1, ""
    elif node.type == "unary_expression":
        if source.text_of(_mark(node)) == "-":
            yield _to(_mark(node), "")
    elif not _is_a_step(node):
        yield from _replaced(SIGNS)(source, node)


@operator("assignment", "assignment_expression")
def assignment(source: KernelSource, node: Node) -> Iterator[Change]:
    """= for +=."""
    if source.text_of(_mark(node)) != "=" and not _is_a_step(node):
        yield _to(_mark(node), "=")


@operator("logic", "binary_expression", "unary_expression")
def logic(source: KernelSource, node: Node) -> Iterator[Change]:
    """|| for &&, | for &; a ! dropped."""
    if node.type == "binary_expression":
        yield from _replaced(LOGIC)(source, node)
    elif source.text_of(_mark(node)) == "!":
        yield _to(_mark(node), "")


@operator("off by one", "subscript_expression", "call_expression")
def off_by_one(source: KernelSource, node: Node) -> Iterator[Change]:
    """The element after or before the one that is meant, and the same for addresses."""
    if node.type == "subscript_expression":
        place = node.named_children[-1]
        place = place.named_children[0] if place.type == "subscript_argument_list" else place
    elif source.called(node) in ADDRESSED and _field(node, "arguments").named_children:
        place = _field(node, "arguments").named_children[0]
    else:
        return
    if place.type != "number_literal":  # `constant` has it
        sums = place.type == "binary_expression" and source.text_of(_mark(place)) in "+-*/%"
        text = source.text_of(place) if sums else _bracketed(source, place)
        yield _to(place, f"{text} + 1")
        yield _to(place, f"{text} - 1")


@operator("smaller array", "array_declarator")
def smaller_array(source: KernelSource, node: Node) -> Iterator[Change]:
    """An array that is declared without its last element."""
    if size := node.child_by_field_name("size"):
        yield _to(size, f"{source.text_of(size)} - 1")


@operator("constant", "number_literal")
def constant(source: KernelSource, node: Node) -> Iterator[Change]:
    """Another number: 0 to 1, 1 to 2 and 0, n to n + 1 and to 10 n; with a point to its half and to ten times it."""
    text = source.text_of(node).lstrip("-")
    in_bits = "x" in text and "p" not in text
    suffix = text[len(text.rstrip("uUlL" if in_bits else "uUlLfF")) :]
    digits = text[: len(text) - len(suffix)]
    if in_bits:
        others = [f"0x{int(digits, 16) ^ 1:X}"]
    elif digits.isdigit():
        n = int(digits)
        others = [str(other) for other in ((n + 1,) if n == 0 else (2, 0) if n == 1 else (n + 1, 10 * n))]
    elif number := float.fromhex(digits) if "x" in digits else float(digits):
        others = [repr(number / 2), repr(number * 10)]
    else:
        others = ["1.0"]
    for other in others:
        yield node.end_byte - len(text), node.end_byte, f"{other}{suffix}"


@operator("named constant", "identifier")
def named_constant(source: KernelSource, node: Node) -> Iterator[Change]:
    """Warps for lanes, fewer lanes in a mask; the width of something by one more."""
    name, whole, parent = source.text_of(node), node, node.parent
    while parent is not None and parent.type in ("qualified_identifier", "template_function"):
        whole, parent = parent, parent.parent
    if parent is None or node == parent.child_by_field_name("declarator"):
        return
    if name in SIBLINGS:
        yield _to(node, SIBLINGS[name])
    elif any(kind in parent.type for kind in ("template", "type_descriptor")):
        return
    elif NAMED.fullmatch(name) or (name in WIDTHS and whole.type != "qualified_identifier"):
        yield _to(whole, f"({source.text_of(whole)} + 1)")


@operator("template argument", "template_argument_list")
def template_argument(source: KernelSource, node: Node) -> Iterator[Change]:
    """A width of 1 for the one that is meant; two neighbors swapped."""
    for part in node.named_children:
        if source.text_of(part) in WIDTHS or NAMED.fullmatch(source.text_of(part)):
            yield _to(part, "1")
    yield from _swapped(source, node.named_children)


@operator("swapped arguments", "argument_list", "initializer_list")
def swapped_arguments(source: KernelSource, node: Node) -> Iterator[Change]:
    """Two neighbors in a call or in a list of values."""
    yield from _swapped(source, node.named_children)


def _swapped(source: KernelSource, parts: list[Node]) -> Iterator[Change]:
    for a, b in pairwise(parts):
        table = a.type == "initializer_list" and a.named_children[:1] and a.named_children[0].type == "string_literal"
        one, other = source.text_of(a), source.text_of(b)
        if one != other and not table and "lambda_expression" not in (a.type, b.type):
            yield a.start_byte, b.end_byte, other + source.between(a.end_byte, b.start_byte) + one


@operator("dropped term", "binary_expression")
def dropped_term(source: KernelSource, node: Node) -> Iterator[Change]:
    """One operand of a sum, product or condition left out."""
    left, mark, right = _field(node, "left"), source.text_of(_mark(node)), _field(node, "right")
    if mark not in OPPOSITES:
        yield left.end_byte, right.end_byte, ""
        if mark in COMMUTING:
            yield left.start_byte, right.start_byte, ""


@operator("condition", "conditional_expression", "if_statement")
def condition(source: KernelSource, node: Node) -> Iterator[Change]:
    """One branch of a conditional expression, always; a condition that is no comparison, negated."""
    test = _field(node, "condition")
    if node.type == "conditional_expression":
        yield _to(node, source.text_of(_field(node, "consequence")))
        yield _to(node, source.text_of(_field(node, "alternative")))
    else:
        test = test.child_by_field_name("value") or test.named_children[-1]
    if _is_plain(test) and test.type not in ("declaration", "unary_expression"):
        yield test.start_byte, test.start_byte, "!"


@operator("dropped statement", "expression_statement", "return_statement", "continue_statement", "break_statement")
def dropped_statement(source: KernelSource, node: Node) -> Iterator[Change]:
    """A call for its effect, an assignment, an early end, left out; one of several assignments in a row."""
    (inner,) = node.named_children or (None,)
    if inner is None and node.type != "expression_statement":
        yield _to(node, ";")
    if inner is None or node.type == "return_statement" or source.called(inner) in BARRIERS:
        return
    if source.function_of(node) is None:  # what a macro declares
        return
    parts = _listed(inner)
    if len(parts) == 1:
        yield _to(node, ";" + "\n" * source.text_of(node).count("\n"))
    for a, b in pairwise(parts):
        yield a.start_byte, b.start_byte, ""
    for a, b in list(pairwise(parts))[-1:]:
        yield a.end_byte, b.end_byte, ""


def _listed(node: Node) -> list[Node]:
    """The parts of a statement between its commas."""
    return [n for child in node.named_children for n in _listed(child)] if node.type == "comma_expression" else [node]


@operator("other field", "field_expression")
def other_field(source: KernelSource, node: Node) -> Iterator[Change]:
    """The next member of the same type; y for x of a thread or block."""
    owner, field, parent = _field(node, "argument"), _field(node, "field"), node.parent
    name = source.text_of(field)
    if parent is not None and parent.type == "call_expression" and node == parent.child_by_field_name("function"):
        return
    if source.text_of(owner) in BUILTIN:
        yield _to(field, AXES[name])
    elif source.text_of(_mark(node)) == ".":
        for other in sorted(source.members.get(name, ())):
            yield _to(field, other)


@operator("flag", "true", "false")
def flag(_: KernelSource, node: Node) -> Iterator[Change]:
    """false for true."""
    yield _to(node, "false" if node.type == "true" else "true")


@operator("other function", "call_expression")
def other_function(source: KernelSource, node: Node) -> Iterator[Change]:
    """The sum of a warp for that of a block, another shuffle; a root or a modulus left out."""
    name, start = source.called(node), node.start_byte
    if new := FUNCTIONS.get(name):
        yield start, start + len(name), new
    elif name in FUNCTIONS:
        yield _to(node, _bracketed(source, _field(node, "arguments").named_children[0]))
