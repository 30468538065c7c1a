"""A source file as the mutations see it: its nodes, the place of each in the text, and what is left alone."""

import ast
from collections.abc import Iterator
from functools import cached_property
from typing import Any

# The contracts' inputs and bounds belong to the tests, not to the math: mutating them would weaken the tests.
CONTRACT = ("_examples", "_bound")


class Text:
    """The text of a file in bytes."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.data = text.encode()

    def between(self, start: int, end: int) -> str:
        return self.data[start:end].decode()

    def line_of(self, start: int) -> str:
        """The whole line with a byte."""
        first = self.data.rfind(b"\n", 0, start) + 1
        return self.data[first:].partition(b"\n")[0].decode()


class Source(Text):
    """The text of a file with its tree: `span` and `text_of` locate a node, `sites` lists what may be mutated."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(path, text)
        self.tree = ast.parse(text)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self.data.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    def span(self, node: Any) -> tuple[int, int]:
        """First byte of a node and the one after its last."""
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text_of(self, node: Any) -> str:
        return self.between(*self.span(node))

    def enclosing(self, node: ast.AST, kinds: Any) -> ast.AST | None:
        """The nearest node of one of the kinds around a node."""
        found = self.parents.get(node)
        while found is not None and not isinstance(found, kinds):
            found = self.parents.get(found)
        return found

    def scope(self, node: ast.AST) -> str:
        """Dotted names of the classes and functions around a node."""
        names: list[str] = []
        around: ast.AST | None = node
        kinds = (ast.FunctionDef, ast.ClassDef)
        while (around := self.enclosing(around, kinds)) is not None:
            names.append(around.name)
        return ".".join(reversed(names)) or "module"

    @cached_property
    def sites(self) -> list[ast.AST]:
        """The nodes that mutations may look at, in the order of the text."""
        return list(_walk(self.tree, self.contract | {"__repr__"}))

    @cached_property
    def contract(self) -> set[str]:
        """The functions that serve a contract alone: examples, bounds, and helpers that nothing else here refers to."""
        functions = [node for node in self.tree.body if isinstance(node, ast.FunctionDef)]
        found = {node.name for node in functions if node.name.startswith(CONTRACT)}
        users: dict[str, set[str]] = {}
        for statement in self.tree.body:
            own = getattr(statement, "name", "")
            for node in ast.walk(statement):
                if isinstance(node, ast.Name):
                    users.setdefault(node.id, set()).add(own)
        plain = [f.name for f in functions if not f.decorator_list and f.name in users]  # an op is decorated
        for _ in plain:  # helpers of helpers
            found |= {name for name in plain if users[name] <= found}
        return found

    @cached_property
    def records(self) -> dict[str, str]:
        """For each field of the file's named tuples: the field after it."""
        after: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(b, ast.Name) and b.id == "NamedTuple" for b in node.bases
            ):
                fields = [
                    n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                ]
                after.update(zip(fields, fields[1:] + fields[:1], strict=True))
        return after


def _walk(node: ast.AST, skipped: set[str]) -> Iterator[ast.AST]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_left_alone(child, skipped):
                continue
            yield child
            if not isinstance(child, ast.Raise):  # it may be dropped; its message is not for mutation
                yield from _walk(child, skipped)


def _is_left_alone(node: ast.AST, skipped: set[str]) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name in skipped
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom)  # docstrings; the body of a generator
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Assign) and node.col_offset == 0 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id  # Mode = Literal[...], R = TypeVar("R"), __all__ = [...]
        return name == "__all__" or (name[0].isupper() and (not name.isupper() or len(name) == 1))
    return False
