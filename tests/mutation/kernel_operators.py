"""The mutations of kernels: each looks at one token and yields replacements of parts of the text."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from .kernel_source import ASSIGNMENTS, PRECEDENCE, KernelSource
from .operators import BOUNDS, Change

KernelOperator = Callable[[KernelSource, int], Iterator[Change]]
KERNEL_OPERATORS: dict[str, KernelOperator] = {}

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


def operator(name: str) -> Callable[[KernelOperator], KernelOperator]:
    def register(function: KernelOperator) -> KernelOperator:
        KERNEL_OPERATORS[name] = function
        return function

    return register


def _token(source: KernelSource, i: int, after: str) -> Change:
    return source.tokens[i].start, source.tokens[i].end, after


def _range(source: KernelSource, first: int, last: int, after: str) -> Change:
    return source.tokens[first].start, source.tokens[last].end, after


def _is_plain(source: KernelSource, first: int, last: int) -> bool:
    """Whether there is no binary operator outside of brackets."""
    return not any(source.is_binary(k) or source.at(k) == "?" for k in range(first, last + 1))


def _bracketed(source: KernelSource, first: int, last: int) -> str:
    text = source.text_of(first, last)
    return text if _is_plain(source, first, last) else f"({text})"


def _is_call(source: KernelSource, i: int) -> int | None:
    """The ( of a call of the name at i, behind its template arguments."""
    if source.tokens[i].kind != "name":
        return None
    opening = source.match[i + 1] + 1 if i + 1 in source.templates and source.at(i + 1) == "<" else i + 1
    return opening if source.at(opening) == "(" and not source.is_parameters(opening) else None


def _in_template(source: KernelSource, i: int) -> bool:
    around = source.around(i)
    return around in source.templates


@operator("barrier dropped")
def barrier_dropped(source: KernelSource, i: int) -> Iterator[Change]:
    """A barrier or a fence is not there."""
    if source.at(i) in BARRIERS:
        yield _range(source, i, i + 3, ";")


@operator("bound")
def bound(source: KernelSource, i: int) -> Iterator[Change]:
    """<= for <, and the like."""
    if source.is_binary(i) and source.at(i) in BOUNDS:
        yield _token(source, i, BOUNDS[source.at(i)])


@operator("opposite")
def opposite(source: KernelSource, i: int) -> Iterator[Change]:
    """>= for <, != for ==, and the like."""
    if source.is_binary(i) and source.at(i) in OPPOSITES:
        yield _token(source, i, OPPOSITES[source.at(i)])


@operator("sign")
def sign(source: KernelSource, i: int) -> Iterator[Change]:
    """+ for -, * for /, << for >>, -= for +=; a unary minus dropped."""
    mark = source.at(i)
    if mark in SIGNS and (source.is_binary(i) or mark in ASSIGNMENTS) and not _steps(source, i):
        yield _token(source, i, SIGNS[mark])
    elif mark == "-" and not source.is_binary(i) and source.tokens[i + 1].kind != "mark":
        yield _token(source, i, "")


def _steps(source: KernelSource, i: int) -> bool:
    """Whether a += is the step of a loop: another one would only run for ever."""
    return source.at(i) in ASSIGNMENTS and source.in_for_header(i)


@operator("assignment")
def assignment(source: KernelSource, i: int) -> Iterator[Change]:
    """= for +=."""
    if source.at(i) in ASSIGNMENTS[1:] and not _steps(source, i):
        yield _token(source, i, "=")


@operator("logic")
def logic(source: KernelSource, i: int) -> Iterator[Change]:
    """|| for &&, | for &; a ! dropped."""
    mark = source.at(i)
    if mark in LOGIC and source.is_binary(i):
        yield _token(source, i, LOGIC[mark])
    elif mark == "!":
        yield _token(source, i, "")


@operator("off by one")
def off_by_one(source: KernelSource, i: int) -> Iterator[Change]:
    """The element behind or before the one that is meant, and the same for addresses."""
    spans = []
    if source.at(i) == "[" and source.match[i] > i + 1 and not _declares(source, i) and not _is_lambda(source, i):
        spans = [(i + 1, source.match[i] - 1)]
    opening = _is_call(source, i) if source.at(i) in ADDRESSED else None
    if opening is not None:
        spans = source.parts(opening)[:1]
    for first, last in spans:
        if first == last and source.tokens[first].kind == "number":  # `constant` has it
            continue
        text = source.text_of(first, last)
        whole = all(not source.is_binary(k) or PRECEDENCE[source.at(k)] >= 9 for k in range(first, last + 1))
        text = text if whole and source.at(first) != "*" else f"({text})"
        yield _range(source, first, last, f"{text} + 1")
        yield _range(source, first, last, f"{text} - 1")


def _is_lambda(source: KernelSource, i: int) -> bool:
    return source.at(source.match[i] + 1) == "(" and (source.tokens[i - 1].kind == "mark" and source.at(i - 1) != "]")


def _declares(source: KernelSource, i: int) -> bool:
    """Whether a [ gives the size of an array that is declared there."""
    first = source.boundary(i)
    if not source.is_declaration(first):
        return False
    k = i - 1
    while k > first and source.at(k) != ",":
        if source.at(k) in ASSIGNMENTS:
            return False
        k = source.match[k] - 1 if k in source.match and source.match[k] < k else k - 1
    return True


@operator("smaller array")
def smaller_array(source: KernelSource, i: int) -> Iterator[Change]:
    """An array that is declared without its last element."""
    if source.at(i) == "[" and source.match[i] > i + 1 and _declares(source, i):
        first, last = i + 1, source.match[i] - 1
        yield _range(source, first, last, f"{source.text_of(first, last)} - 1")


@operator("constant")
def constant(source: KernelSource, i: int) -> Iterator[Change]:
    """Another number: 0 to 1, 1 to 2 and 0, n to n + 1 and to 10 n; with a point to its half and to ten times it."""
    token = source.tokens[i]
    if token.kind != "number":
        return
    in_bits = "x" in token.text and "p" not in token.text
    suffix = token.text[len(token.text.rstrip("uUlL" if in_bits else "uUlLfF")) :]
    digits = token.text[: len(token.text) - len(suffix)]
    if in_bits:
        yield _token(source, i, f"0x{int(digits, 16) ^ 1:X}{suffix}")
    elif digits.isdigit():
        n = int(digits)
        others = (n + 1,) if n == 0 else (2, 0) if n == 1 else (n + 1, 10 * n)
        for other in others:
            yield _token(source, i, f"{other}{suffix}")
    elif number := float.fromhex(digits) if "x" in digits else float(digits):
        for other in (number / 2, number * 10):
            yield _token(source, i, f"{other!r}{suffix}")
    else:
        yield _token(source, i, f"1.0{suffix}")


@operator("named constant")
def named_constant(source: KernelSource, i: int) -> Iterator[Change]:
    """Warps for lanes, fewer lanes in a mask; the width of something by one more."""
    name = source.at(i)
    if source.tokens[i].kind != "name" or _is_declared(source, i) or (source.at(i - 1) in ("::", ".") and name == "N"):
        return
    if name in SIBLINGS:
        yield _token(source, i, SIBLINGS[name])
    elif (NAMED.fullmatch(name) or name in WIDTHS) and not _in_template(source, i):
        last = source.match[i + 1] if i + 1 in source.templates else i
        first = i
        while source.at(first - 1) == "::":
            first = source.match[first - 2] - 1 if first - 2 in source.templates else first - 2
        yield _range(source, first, last, f"({source.text_of(first, last)} + 1)")


def _is_declared(source: KernelSource, i: int) -> bool:
    """Whether a name is the one that a declaration introduces."""
    return source.at(i + 1) == "=" or (i + 1 in source.templates and source.at(source.match[i + 1] + 1) == "=")


@operator("template argument")
def template_argument(source: KernelSource, i: int) -> Iterator[Change]:
    """A width of 1 for the one that is meant; two neighbours swapped."""
    if i not in source.templates or source.at(i) != "<" or source.at(i - 1) == "template":
        return
    parts = source.parts(i)
    for first, last in parts:
        if first == last and (source.at(first) in WIDTHS or NAMED.fullmatch(source.at(first))):
            yield _token(source, first, "1")
    for a, b in pairwise(parts):
        yield from _swapped(source, a, b)


@operator("swapped arguments")
def swapped_arguments(source: KernelSource, i: int) -> Iterator[Change]:
    """Two neighbours in a call or in a list of values."""
    if source.at(i) in ("(", "{") and i in source.match:
        if source.at(i) == "(" and (source.tokens[i - 1].kind != "name" and source.at(i - 1) != ">"):
            return
        if source.at(i) == "{" and source.is_block(i):
            return
        for a, b in pairwise(source.parts(i)):
            table = source.at(a[0]) == "{" and source.tokens[a[0] + 1].kind == "text"  # of names: their order is free
            if source.at(a[0]) != "[" and source.at(b[0]) != "[" and not table:  # [: lambdas
                yield from _swapped(source, a, b)


def _swapped(source: KernelSource, a: tuple[int, int], b: tuple[int, int]) -> Iterator[Change]:
    one, other = source.text_of(*a), source.text_of(*b)
    if one != other:
        between = source.between(source.tokens[a[1]].end, source.tokens[b[0]].start)
        yield _range(source, a[0], b[1], other + between + one)


@operator("dropped term")
def dropped_term(source: KernelSource, i: int) -> Iterator[Change]:
    """One operand of a sum, product or condition left out."""
    mark = source.at(i)
    if not source.is_binary(i) or mark in OPPOSITES:
        return
    first, last = source.operand_before(i, PRECEDENCE[mark]), source.operand_behind(i, PRECEDENCE[mark])
    yield source.tokens[i - 1].end, source.tokens[last].end, ""
    if mark in COMMUTING:
        yield source.tokens[first].start, source.tokens[i + 1].start, ""


@operator("condition")
def condition(source: KernelSource, i: int) -> Iterator[Change]:
    """One branch of a conditional expression, always; a condition that is no comparison, negated."""
    if source.at(i) == "?":
        first = source.operand_before(i, 0)
        colon = _colon(source, i)
        last = source.operand_behind(colon, 0)
        while source.at(last + 1) == "?":
            last = source.operand_behind(_colon(source, last + 1), 0)
        yield _range(source, first, last, source.text_of(i + 1, colon - 1))
        yield _range(source, first, last, source.text_of(colon + 1, last))
        yield from _negated(source, first, i - 1)
    elif source.at(i) == "if" and source.at(i + 1) == "(" and source.at(i + 2) != "!":
        yield from _negated(source, i + 2, source.match[i + 1] - 1)


def _negated(source: KernelSource, first: int, last: int) -> Iterator[Change]:
    if _is_plain(source, first, last):
        yield source.tokens[first].start, source.tokens[first].start, "!"


def _colon(source: KernelSource, i: int) -> int:
    """The : of the ? at i."""
    k, depth = i + 1, 0
    while source.at(k) != ":" or depth:
        depth += (source.at(k) == "?") - (source.at(k) == ":")
        k = source.match[k] + 1 if source.match.get(k, k) > k else k + 1
    return k


@operator("dropped statement")
def dropped_statement(source: KernelSource, i: int) -> Iterator[Change]:
    """A call for its effect, an assignment, an early end, left out; one of several assignments in a row."""
    end = source.statement_at(i)
    if end is None or source.at(i) in BARRIERS or source.is_declaration(i):
        return
    if source.at(i) == "return" and end > i + 1:
        return
    if source.at(i) in ("return", "continue", "break"):
        yield _range(source, i, end, ";")
        return
    parts = _listed(source, i, end)
    if len(parts) == 1:
        lines = source.between(source.tokens[i].start, source.tokens[end].end).count("\n")
        yield _range(source, i, end, ";" + "\n" * lines)
        return
    for k, (first, last) in enumerate(parts):
        if k + 1 < len(parts):
            yield source.tokens[first].start, source.tokens[parts[k + 1][0]].start, ""
        else:
            yield source.tokens[parts[k - 1][1]].end, source.tokens[last].end, ""


def _listed(source: KernelSource, first: int, end: int) -> list[tuple[int, int]]:
    """The parts of a statement between its commas."""
    found, k, begin = [], first, first
    while k <= end:
        if source.at(k) == "," or k == end:
            found.append((begin, k - 1))
            begin = k + 1
        k = source.match[k] + 1 if source.match.get(k, k) > k else k + 1
    return found


@operator("other field")
def other_field(source: KernelSource, i: int) -> Iterator[Change]:
    """The next member of the same type; y for x of a thread or block."""
    if source.at(i) != "." or source.tokens[i + 1].kind != "name" or source.at(i + 2) == "(":
        return
    name = source.at(i + 1)
    if source.at(i - 1) in BUILTIN:
        yield _token(source, i + 1, AXES[name])
        return
    for other in sorted(source.members.get(name, ())):
        yield _token(source, i + 1, other)


@operator("flag")
def flag(source: KernelSource, i: int) -> Iterator[Change]:
    """false for true."""
    if source.at(i) in ("true", "false"):
        yield _token(source, i, "false" if source.at(i) == "true" else "true")


@operator("other function")
def other_function(source: KernelSource, i: int) -> Iterator[Change]:
    """The sum of a warp for that of a block, another shuffle; a root or a modulus left out."""
    name = source.at(i)
    opening = _is_call(source, i)
    if name not in FUNCTIONS or opening is None or source.definition_of(i) is None:
        return
    if new := FUNCTIONS[name]:
        yield _token(source, i, new)
    else:
        first, last = source.parts(opening)[0]
        yield _range(source, i, source.match[opening], _bracketed(source, first, last))
