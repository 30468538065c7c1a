"""Rules of the repository that no linter checks: CuPy's home, what the top level holds, what an import loads."""

import ast
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path

import bnengine
from bnengine.optim.optimizers import OPTIMIZERS
from tests.support import ROOT, missing

PACKAGE = ROOT / "bnengine"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", ".gitignore"),
    *("bnengine", "kernels", "tests", "examples", ".ci"),
}
HEAVY = {"torch", "cupy", "jax", "array_api_strict", "matplotlib", "rich", "click", "safetensors", "tomli_w", "PIL"}


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file, its module first."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> set[str]:
    """The dotted names of all that a file imports, anywhere in it, by a statement or by import_module("...")."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            base += [node.module] if node.module else []
            names.update(".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names.update(a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    return names


def test_imports_are_read_in_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_repository.ROOT", tmp_path)
    path = tmp_path / "bnengine" / "layers" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import a.b as c\nfrom .. import ops\nfrom ..ops.loss import f\nfrom . import base\nfrom bnengine import g\n"
        "def h():\n    import importlib\n    importlib.import_module('cupy.cuda')\n"
    )
    expected = {"a.b", "bnengine.ops", "bnengine.ops.loss.f", "bnengine.layers.base", "bnengine.g"}
    assert imports(path) == expected | {"importlib", "cupy.cuda"}


def test_only_the_backend_and_the_cuda_launches_import_cupy():
    for path in MODULES:
        names = {name for name in imports(path) if name.split(".")[0] == "cupy" or "array_api_compat.cupy" in name}
        home = label(path) == "bnengine/arrays/backend.py" or label(path).startswith("bnengine/fused/cuda/")
        assert home or not names, f"{label(path)} imports {sorted(names)}"


def test_only_the_runtime_and_ops_name_a_fused_version():
    """Others may ask `bnengine.fused` for what the fused code of a backend offers, whichever that is."""
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] in ("runtime", "ops", "fused"):
            continue
        texts = {n.value for n in nodes(path) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        named = {t for t in texts | imports(path) if t.startswith(("bnengine.fused.", ".fused", "fused."))}
        named -= {"bnengine.fused.backend_feature", "bnengine.fused.threads"}
        assert not named, f"{label(path)} names {sorted(named)}"


def test_every_file_of_the_kernels_has_its_line_in_their_readme():
    text = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    files = [path.relative_to(ROOT / "kernels") for path in (ROOT / "kernels").rglob("*.*") if path.is_file()]
    assert files
    unnamed = [path.as_posix() for path in files if f"`{path.as_posix()}`" not in text]
    assert unnamed == ["README.md"]


def test_nothing_else_lies_at_the_top():
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        missing("git", f"this is no git checkout ({error})")
    strangers = {line.partition("/")[0] for line in done.stdout.splitlines()} - TOP_LEVEL
    assert not strangers


def test_every_public_name_is_there_and_says_what_it_is():
    needed = "get_backend available_backends Sequential Dense BatchNorm Activation Dropout Residual"
    classes = {cls.__name__ for cls in OPTIMIZERS.values()}
    assert {*needed.split(), *classes, "Trainer", "load", "save", "load_digits", "ops"} <= set(bnengine.__all__)
    for name in bnengine.__all__:
        value = getattr(bnengine, name)
        if callable(value) or inspect.ismodule(value):
            assert inspect.getdoc(value), f"bnengine.{name} has no docstring"
        if inspect.isclass(value):
            own = {n: v for n, v in vars(value).items() if not n.startswith("_") and callable(v)}
            silent = [n for n in own if not inspect.getdoc(getattr(value, n))]
            assert not silent, f"bnengine.{name}: no docstring on {silent}"


def test_every_module_says_what_it_is_for():
    silent = [label(p) for p in MODULES if p.stat().st_size and not ast.get_docstring(nodes(p)[0])]
    assert not silent


def test_importing_bnengine_loads_no_other_library_than_numpy():
    code = "import sys, bnengine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    loaded = {module.partition(".")[0] for module in modules}
    assert "numpy" in loaded
    assert not loaded & HEAVY, f"import bnengine loads {sorted(loaded & HEAVY)}"
    assert not {module for module in modules if module.startswith(("bnengine.lab", "bnengine.inspect", "bnengine.cli"))}
    # This one asks NumPy for every submodule that it has, and takes longer than NumPy itself.
    assert "array_api_compat.numpy" not in modules
