"""A C++ or CUDA source as the mutations see it: its tokens, which of them form what, and what is left alone.

There is no parser, but one convention that the formatter keeps: a binary operator has a space on both sides, and the
brackets of a template have none.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from .kernel_tokens import tokens_of
from .source import Text

PRECEDENCE = {
    **dict.fromkeys(("*", "/", "%"), 10),
    **dict.fromkeys(("+", "-"), 9),
    **dict.fromkeys(("<<", ">>"), 8),
    **dict.fromkeys(("<", "<=", ">", ">="), 7),
    **dict.fromkeys(("==", "!="), 6),
    **{"&": 5, "^": 4, "|": 3, "&&": 2, "||": 1},
}
ASSIGNMENTS = ("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=")
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}
_ENDS = (",", ";", "?", ":", "return", "else", *ASSIGNMENTS)  # of an operand
_CONTROL = ("if", "for", "while", "switch")
_TYPES = ("struct", "union", "class", "enum", "namespace")
# What says nothing about values, or is the judge's and not the judged: checks, bounds of registers, names of types.
_ALONE = ("static_assert", "__launch_bounds__", "__align__", "__attribute__")
# Nor do functions that only ask for memory before its turn, and the constants that say how early.
_AHEAD = ("ask_for", "ask_for_sources", "fetch", "__builtin_prefetch", "rows_ahead", "kAhead", "kNearBytes", "kAsked")
_QUALIFIERS = ("const", "constexpr", "static", "inline", "explicit", "RULE", "__shared__", "__device__", "extern")


class Definition(NamedTuple):
    """A function, type or constant of a namespace: its name, its tokens [first, last], and every name in it."""

    name: str
    first: int
    last: int
    names: frozenset[str]


class KernelSource(Text):
    """The text of a file as tokens; positions are places in `tokens`."""

    def __init__(self, path: str, text: str, members: Mapping[str, set[str]] | None = None) -> None:
        super().__init__(path, text)
        self.tokens = tokens_of(self.data)
        self.match: dict[int, int] = {}  # of each bracket the other one
        self.templates: set[int] = set()  # the < and > that are brackets
        self._pair()
        self.members = self.own_members if members is None else members  # those of all files that it may name

    def _pair(self) -> None:
        opened: list[int] = []
        for i, token in enumerate(self.tokens):
            if token.text in ("(", "[", "{") or (token.text == "<" and self._opens_template(i)):
                opened.append(i)
            elif token.text == ">" and opened and self.tokens[opened[-1]].text == "<":
                self.templates |= {opened[-1], i}
                self._join(opened.pop(), i)
            elif token.text in (")", "]", "}"):
                self._join(opened.pop(), i)
        assert not opened, f"{self.path}: a bracket is not closed"

    def _join(self, a: int, b: int) -> None:
        assert _CLOSING[self.tokens[a].text] == self.tokens[b].text, f"{self.path}: unlike brackets"
        self.match[a], self.match[b] = b, a

    def _opens_template(self, i: int) -> bool:
        before = self.tokens[i - 1]
        return before.text == "template" or (before.kind == "name" and before.end == self.tokens[i].start)

    # -- tokens and their surroundings

    def text_of(self, first: int, last: int) -> str:
        return self.between(self.tokens[first].start, self.tokens[last].end)

    def at(self, i: int) -> str:
        """The text of a token, "" beyond the ends."""
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def is_binary(self, i: int) -> bool:
        """Whether a mark is an operator between two operands."""
        token = self.tokens[i]
        if token.text not in PRECEDENCE or i in self.templates:
            return False
        return self.data[token.start - 1 : token.start].isspace() and self.data[token.end : token.end + 1].isspace()

    def operand_before(self, i: int, precedence: float) -> int:
        """The first token of what an operator at i has on its left."""
        j = i
        while j > 0:
            k = j - 1
            opens = self.at(k) in ("(", "[", "{") or (k in self.templates and self.at(k) == "<")
            if self._ends(k) or opens or (self.at(k) == "}" and self.is_block(self.match[k])):
                break
            if self.is_binary(k) and PRECEDENCE[self.at(k)] < precedence:
                break
            j = self.match[k] if k in self.match and self.match[k] < k else k
            if self.at(j) == "(" and self.at(j - 1) in (*_CONTROL, "constexpr"):
                return i if k == i - 1 else k + 1
        return j

    def operand_behind(self, i: int, precedence: float) -> int:
        """The last token of what an operator at i has on its right."""
        j = i
        while j + 1 < len(self.tokens):
            k = j + 1
            if self._ends(k) or self.at(k) in (")", "]", "}") or (k in self.templates and self.at(k) == ">"):
                break
            if self.is_binary(k) and PRECEDENCE[self.at(k)] <= precedence:
                break
            j = self.match.get(k, k)
        return j

    def _ends(self, i: int) -> bool:
        return self.at(i) in _ENDS

    def parts(self, opening: int) -> list[tuple[int, int]]:
        """First and last token of each thing between commas inside of a pair of brackets."""
        found, first, i = [], opening + 1, opening + 1
        while i <= self.match[opening]:
            if self.at(i) == "," or i == self.match[opening]:
                if i > first:
                    found.append((first, i - 1))
                first = i + 1
            i = self.match[i] + 1 if i in self.match and self.match[i] > i else i + 1
        return found

    # -- statements and blocks

    def boundary(self, i: int) -> int:
        """The first token of the statement that a token stands in, on the level of the token."""
        j = i
        while j > 0:
            k = j - 1
            if self.at(k) in (";", "{", "(", "[") or (self.at(k) == "}" and self.is_block(self.match[k])):
                break
            if self.at(k) == "else":
                break
            opening = self.match[k] if k in self.match and self.match[k] < k else k
            if self.at(k) == ")" and (self.at(opening - 1) in _CONTROL or self.at(opening - 2) == "if"):
                break
            j = opening
        return j

    def is_block(self, i: int) -> bool:
        """Whether a { begins statements or members, not a list of values."""
        return self._blocks[i]

    @cached_property
    def _blocks(self) -> dict[int, bool]:
        found: dict[int, bool] = {}
        for i, token in enumerate(self.tokens):
            if token.text != "{":
                continue
            j = i
            while j > 0 and self.at(j - 1) not in (";", "{", "}", "=", "return"):
                j = self.match[j - 1] if self.match.get(j - 1, j) < j - 1 else j - 1
            words = {self.at(k) for k in self._top(j, i)}
            found[i] = bool(words & set(_TYPES)) or self.at(i - 1) in (")", "const", "else")
        return found

    def _top(self, first: int, stop: int) -> Iterator[int]:
        """The tokens [first, stop) that are in no brackets."""
        i = first
        while i < stop:
            yield i
            i = self.match[i] + 1 if self.match.get(i, i) > i else i + 1

    def is_declaration(self, first: int) -> bool:
        """Whether the statement that begins at a token declares something."""
        while self.at(first) in _QUALIFIERS:
            first += 1
        if self.tokens[first].kind != "name" or self.at(first) in ("return", "continue", "break", "delete", *_CONTROL):
            return False
        i = first + 1
        while self.at(i) == "::" and self.tokens[i + 1].kind == "name":
            i += 2
        if i in self.templates:
            i = self.match[i] + 1
        spaced = self.tokens[i].start > self.tokens[i - 1].end
        declares = self.tokens[i].kind == "name" or (self.at(i) in ("*", "&") and not spaced)
        return declares or (self.at(i) == "(" and self.at(i + 1) == "&" and self.at(first) not in _CONTROL)

    @cached_property
    def statements(self) -> list[tuple[int, int]]:
        """(first token, its semicolon) of each statement inside of a function that ends in one."""
        found = []
        for i, token in enumerate(self.tokens):
            if token.text == ";" and not self._inside_round(i):
                first = self.boundary(i)
                if first < i and self.function_of(first):
                    found.append((first, i))
        return found

    def statement_at(self, i: int) -> int | None:
        """The semicolon of the statement that a token begins."""
        return self._ends_of.get(i)

    @cached_property
    def _ends_of(self) -> dict[int, int]:
        return dict(self.statements)

    @cached_property
    def own_members(self) -> dict[str, set[str]]:
        """For each member that is declared in a row of members: the one behind it, of the same type."""
        behind: dict[str, set[str]] = {}
        for i, token in enumerate(self.tokens):
            first = self.boundary(i) if token.text == ";" and not self.function_of(i) else i
            if first == i or self.at(first) in (*_QUALIFIERS, "using", "template") or not self.is_declaration(first):
                continue
            names = [self.at(k) for k in self._top(first + 1, i) if self.at(k + 1) in (",", ";", "[", "{")]
            names = [name for name in names if name.isidentifier()]
            for name, other in zip(names, names[1:] + names[:1], strict=True):
                behind.setdefault(name, set()).update({other} - {name})
        return behind

    def _inside_round(self, i: int) -> bool:
        """Whether the nearest bracket around a token is a round one, as for the semicolons of a `for`."""
        around = self.around(i)
        return around is not None and self.at(around) == "("

    def around(self, i: int) -> int | None:
        """The nearest bracket that is open at a token."""
        return self._around[i]

    @cached_property
    def _around(self) -> list[int | None]:
        found: list[int | None] = []
        opened: list[int] = []
        for i in range(len(self.tokens)):
            if self.match.get(i, i) < i:
                opened.pop()
            found.append(opened[-1] if opened else None)
            if self.match.get(i, i) > i:
                opened.append(i)
        return found

    def in_for_header(self, i: int) -> bool:
        """Whether a token belongs to the head of a loop."""
        around = self.around(i)
        while around is not None and self.at(around) != "{":
            if self.at(around - 1) == "for":
                return True
            around = self.around(around)
        return False

    # -- definitions and scopes

    @cached_property
    def definitions(self) -> list[Definition]:
        """What the namespaces of the file hold."""
        found, first, i = [], 0, 0
        while i < len(self.tokens):
            if self.at(i) == "{" and "namespace" in {self.at(k) for k in range(first, i)}:
                i += 1
                first = i
                continue
            last = self.match[i] if self.at(i) == "{" else i
            ends = self.at(i) == ";" or (self.at(i) == "{" and self.is_block(i) and self.at(last + 1) != ";")
            if ends:
                names = frozenset(t.text for t in self.tokens[first : last + 1] if t.kind == "name")
                found.append(Definition(self._name(first, i), first, last, names))
                first = last + 1
            elif self.at(i) == "}":
                first = last + 1
            i = self.match[i] + 1 if self.match.get(i, i) > i and self.at(i) != "<" else last + 1
        return found

    def _name(self, first: int, stop: int) -> str:
        """What tokens up to a { or ; define."""
        top = list(self._top(first, stop))
        for k in top:
            if self.at(k) in _TYPES and self.at(k) != "class":
                behind = [self.at(j) for j in top if j > k and self.tokens[j].kind == "name"]
                return next((name for name in behind if name not in ("class", "alignas")), "")
        for k in top:
            if self.at(k) == "(" and self.tokens[k - 1].kind == "name" and self.at(k - 1) not in _ALONE:
                return self.at(k - 1)
            if self.at(k) == "(" and self.at(k - 2) == "operator":
                return "operator"
            if self.at(k) in ("=", "["):
                break
        names = []
        for k in top:
            if self.at(k) in ("=", "["):
                break
            if self.tokens[k].kind == "name":
                names.append(self.at(k))
        return names[-1] if names else ""

    def definition_of(self, i: int) -> Definition | None:
        return next((d for d in self.definitions if d.first <= i <= d.last), None)

    def function_of(self, i: int) -> str:
        """The function that a token is in the body of, with its type's name; "" outside of any."""
        return self._functions.get(i, "")

    @cached_property
    def _functions(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for definition in self.definitions:
            body = definition.last
            if self.at(body) == "}" and self.is_block(self.match[body]) and not self._is_type(definition):
                found.update(dict.fromkeys(range(self.match[body] + 1, body), definition.name))
                continue
            for i in range(definition.first, definition.last + 1):
                inside_a_type = self.at(i) == "{" and self.is_block(i) and i not in found
                if inside_a_type and self.at(i - 1) in (")", "const"):
                    first = self.boundary(i)
                    own = f"{definition.name}.{self._name(first, i)}"
                    found.update(dict.fromkeys(range(i + 1, self.match[i]), own))
        return found

    def _is_type(self, definition: Definition) -> bool:
        top = [self.at(k) for k in self._top(definition.first, definition.last)]
        return any(word in top for word in ("struct", "union", "enum"))

    def scope(self, i: int) -> str:
        """Where a token is: the function, else the type or constant."""
        definition = self.definition_of(i)
        return self.function_of(i) or (definition.name if definition else "") or "module"

    # -- what is left alone

    @cached_property
    def sites(self) -> list[int]:
        """The tokens that mutations may look at."""
        alone: set[int] = set()
        for i, token in enumerate(self.tokens):
            if token.text in _ALONE and self.at(i + 1) == "(":
                alone |= set(range(i, self.match[i + 1] + 1))
            if token.text in _AHEAD:
                alone |= self._asking(i)
            if token.text == "template" and self.at(i + 1) == "<":
                alone |= set(range(i, self.match[i + 1] + 1))
            if token.text in ("using", "enum"):
                end = next(k for k in range(i, len(self.tokens)) if self.at(k) == ";")
                alone |= set(range(i, end + 1))
            if token.text == "(" and self.is_parameters(i):
                alone |= set(range(i, self.match[i] + 1))
        return [i for i in range(len(self.tokens)) if i not in alone and self.tokens[i].kind != "text"]

    def _asking(self, i: int) -> set[int]:
        """A call that asks for memory, with the condition that it stands under; the definition of such a function."""
        definition = self.definition_of(i)
        if definition is not None and definition.name in _AHEAD:
            return set(range(definition.first, definition.last + 1))
        first = self.boundary(i)
        end = self.statement_at(first)
        if self.at(i + 1) != "(" and i + 1 not in self.templates:
            return set()
        if self.at(first - 1) == ")" and self.at(self.match[first - 1] - 1) == "if":
            first = self.match[first - 1] - 1
        return set() if end is None or self.at(end - 1) != ")" else set(range(first, end + 1))

    def is_parameters(self, opening: int) -> bool:
        """Whether a ( begins the parameters of a function or lambda, or a type in brackets."""
        if self.at(opening - 1) in _CONTROL or self.at(opening - 1) == "constexpr":
            return False
        for first, last in self.parts(opening):
            if self.at(first) in ("const", "auto", "unsigned", "long"):
                return True
            if self.at(first) != "sizeof" and self.is_declaration(first) and last > first:
                return True
        return (
            self.at(opening + 1) == "&" and self.at(opening - 1) not in ("(", ",", "=") and self.at(opening + 3) == "["
        )


def users(name: str, sources: dict[str, KernelSource]) -> set[str]:
    """The files with a definition that mentions `name`, or something of a header that mentions it, and so on."""
    headers = [source for path, source in sources.items() if not path.endswith((".cu", ".cpp"))]
    reached, grew = {name}, True
    while grew:
        more = {d.name for s in headers for d in s.definitions if d.names & reached} - reached
        reached, grew = reached | more, bool(more)
    return {path for path, s in sources.items() if any(d.names & reached for d in s.definitions)}
