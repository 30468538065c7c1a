"""A C++ or CUDA source as the mutations see it: its syntax tree, the nodes that may change, the definition of each."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import NamedTuple

import tree_sitter_cuda
from tree_sitter import Language, Node, Parser

from .source import Text

PARSER = Parser(Language(tree_sitter_cuda.language()))
# Strings stay; comments, directives, attributes and words that macros define become spaces, which keeps all places.
_HIDDEN = re.compile(
    rb"""("(?:\\.|[^"\\\n])*") | //[^\n]* | /\*.*?\*/ | ^[ \t]*\#(?:\\\n|[^\n])* | \b(?:RULE|VECTOR|FUNCTION)\b
    | \b(?:__attribute__|__launch_bounds__|__align__) \s* \( (?: [^()] | \( (?: [^()] | \([^()]*\) )* \) )* \)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
# What says nothing about values, or is the judge's: checks, types, parameters.
_ALONE = ("static_assert_declaration", "template_parameter_list", "parameter_list", "alias_declaration")
_ALONE += ("enum_specifier", "using_declaration", "string_literal", "char_literal")
# Nor do functions that only prefetch memory, and the constants that say how early.
_AHEAD = ("ask_for", "ask_for_sources", "fetch", "__builtin_prefetch", "rows_ahead", "kAhead", "kNearBytes", "kAsked")
_TYPES = ("struct_specifier", "class_specifier", "union_specifier", "enum_specifier")
_NAMES = ("identifier", "field_identifier", "type_identifier", "operator_name", "destructor_name")
_NAMED = (*_TYPES, *_NAMES, "array_declarator", "function_declarator", "pointer_declarator")


class Definition(NamedTuple):
    """A function, type or constant of a namespace: its name, its node, and every name in it."""

    name: str
    node: Node
    names: frozenset[str]


class KernelSource(Text):
    """The text of a file with its tree; `members` are those of all files that it may name."""

    def __init__(self, path: str, text: str, members: Mapping[str, set[str]] | None = None) -> None:
        super().__init__(path, text)
        self.seen = _HIDDEN.sub(lambda m: m[0] if m[1] else re.sub(rb"[^\n]", b" ", m[0]), self.data)
        self.root = PARSER.parse(self.seen).root_node
        self.members = self.own_members if members is None else members

    def unparsed(self) -> int:
        """How many bytes the parser takes for mistakes."""
        return sum(node.end_byte - node.start_byte for node in _all(self.root) if node.type == "ERROR")

    def text_of(self, node: Node) -> str:
        return self.between(node.start_byte, node.end_byte)

    @cached_property
    def sites(self) -> list[Node]:
        """The nodes that mutations may look at, in the order of the text."""
        return list(self._walk(self.root))

    def _walk(self, node: Node) -> Iterator[Node]:
        for child in node.named_children:
            if not self._is_left_alone(child):
                yield child
                yield from self._walk(child)

    def _is_left_alone(self, node: Node) -> bool:
        if node.type in ("function_definition", "declaration", "field_declaration"):
            return self.name_of(node) in _AHEAD
        if node.type == "if_statement":
            node = node.child_by_field_name("consequence") or node
        if node.type == "expression_statement" and node.named_children:
            return self.called(node.named_children[0]) in _AHEAD
        return node.type in _ALONE

    def called(self, node: Node) -> str:
        """The name of the function that a call calls, without template arguments; "" of what is no call."""
        function = node.child_by_field_name("function") if node.type == "call_expression" else None
        return self.text_of(function).partition("<")[0] if function else ""

    def name_of(self, node: Node) -> str:
        """What a definition defines, "" where it has no name."""
        if node.type == "template_declaration":
            return next(filter(None, map(self.name_of, node.named_children[1:])), "")
        if node.type in _NAMES:
            return "operator" if node.type == "operator_name" else self.text_of(node)
        if node.type in _TYPES:
            name = node.child_by_field_name("name")
            return self.name_of(name) if name else ""
        inner = node.child_by_field_name("declarator")
        if inner is None:  # a reference, or a type alone
            inner = next((n for n in node.named_children if n.type in _NAMED), None)
        return self.name_of(inner) if inner else ""

    @cached_property
    def definitions(self) -> list[Definition]:
        """What the namespaces of the file hold."""
        return [self._defined(node) for node in _members(self.root)]

    def _defined(self, node: Node) -> Definition:
        words = re.findall(rb"[A-Za-z_]\w*", self.seen[node.start_byte : node.end_byte])
        return Definition(self.name_of(node), node, frozenset(word.decode() for word in words))

    def definition_of(self, node: Node) -> Definition | None:
        return next((d for d in self.definitions if d.node.start_byte <= node.start_byte < d.node.end_byte), None)

    def function_of(self, node: Node) -> Node | None:
        """The outermost function that a node is in."""
        found, around = None, node.parent
        while around is not None:
            found = around if around.type == "function_definition" else found
            around = around.parent
        return found

    def scope(self, node: Node) -> str:
        """Where a node is: the function, with its type before it, else the type or constant."""
        definition, function = self.definition_of(node), self.function_of(node)
        if definition is None:
            return "module"
        names = [definition.name or "module"]
        inner = (
            definition.node.named_children[-1] if definition.node.type == "template_declaration" else definition.node
        )
        if function is not None and inner != function:
            names.append(self.name_of(function))
        return ".".join(names)

    @cached_property
    def own_members(self) -> dict[str, set[str]]:
        """For each member that is declared in a row of members: the one after it, of the same type."""
        after: dict[str, set[str]] = {}
        for node in _all(self.root):
            if node.type == "field_declaration":
                names = [self.name_of(part) or self.text_of(part) for part in node.children_by_field_name("declarator")]
                for name, other in zip(names, names[1:] + names[:1], strict=True):
                    after.setdefault(name, set()).update({other} - {name})
        return after


@lru_cache(maxsize=128)
def source_of(path: str, text: str) -> KernelSource:
    """A file that names only its members."""
    return KernelSource(path, text)


def _members(node: Node) -> Iterator[Node]:
    for child in node.named_children:
        if child.type in ("namespace_definition", "declaration_list", "linkage_specification"):
            yield from _members(child)
        elif child.type not in ("namespace_identifier", "nested_namespace_specifier", "string_literal"):
            yield child


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.named_children:
        yield from _all(child)


def users(name: str, sources: dict[str, KernelSource]) -> set[str]:
    """The files with a definition that mentions `name`, or something of a header that mentions it, and so on."""
    headers = [source for path, source in sources.items() if not path.endswith((".cu", ".cpp"))]
    reached, grew = {name}, True
    while grew:
        more = {d.name for s in headers for d in s.definitions if d.names & reached} - reached
        reached, grew = reached | more, bool(more)
    return {path for path, s in sources.items() if any(d.names & reached for d in s.definitions)}
