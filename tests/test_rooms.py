"""The rooms as their imports say they are: no private name crosses a wall, and nothing is imported around the arrows.

The layers themselves, and that there is no circle inside a room, are contracts in ``pyproject.toml`` (``make arrows``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import conceptatlas

SOURCE = Path(conceptatlas.__file__).parent


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything of this package that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{'.' * node.level}{node.module}.{name.name}" for name in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.startswith((".", "conceptatlas")))


def is_dynamic(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__", "resolve_name")


def is_allowed(wanted: ast.expr) -> bool:
    """Whether what is imported by name is another library, or a module below the package that imports it."""
    if isinstance(wanted, ast.Constant):
        return not str(wanted.value).startswith(("conceptatlas", "."))
    return ast.unparse(wanted).startswith(("f'{__name__}.", "f'{__package__}."))


def is_of_no_room(name: str) -> bool:
    """Whether a name is the whole package's, such as ``conceptatlas.explore``; any room may read the version."""
    top = name.split(".")[1:2] or [""]
    return top != ["__version__"] and not any((SOURCE / f"{top[0]}{end}").is_file() for end in ("/__init__.py", ".py"))


def problems(text: str, module: str) -> list[str]:
    """Return what a module's imports must not do; ``conceptatlas`` itself stands above the rooms and may name any."""
    tree, found = ast.parse(text), []
    for line, name in imported(tree):
        if name.startswith("."):
            found.append(f"{module}:{line} relative import")
        elif is_of_no_room(name):
            found.append(f"{module}:{line} goes through the package's entry, which stands above every room: {name}")
        elif room_of(name) != room_of(module) and any(map(is_private, name.split("."))):
            found.append(f"{module}:{line} private to another room: {name}")
    for node in ast.walk(tree):
        if is_dynamic(node) and module != "conceptatlas" and not is_allowed(node.args[0]):
            found.append(f"{module}:{node.lineno} imported by name: {ast.unparse(node.args[0])}")
    return found


def test_no_room_reaches_into_another_or_around_the_arrows() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    found = []
    for file in files:
        module = ".".join(["conceptatlas", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
        found += problems(file.read_text(encoding="utf-8"), module)
    assert found == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from conceptatlas.saes._cpu import ReadyRows", "private"),
        ("from conceptatlas.saes import _kernels", "private"),
        ("def f():\n    from conceptatlas.saes.encode import _fitting", "private"),
        ("import conceptatlas", "entry"),
        ("from conceptatlas import explore", "entry"),
        ("from . import tables", "relative"),
        ("importlib.import_module('conceptatlas.views').explore()", "by name"),
        ("importlib.import_module(NAME)", "by name"),
        ("__import__(f'conceptatlas.{room}')", "by name"),
        ("pkgutil.resolve_name('conceptatlas.views:explore')", "by name"),
    ],
)
def test_what_the_rules_refuse(text: str, said: str) -> None:
    assert [said in line for line in problems(text, "conceptatlas.ranking.result")] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "from conceptatlas import __version__",
        "from conceptatlas.ranking._private import _name",
        "from conceptatlas.recording import Recording",
        "importlib.import_module('mlflow')",
        "importlib.import_module(f'{__name__}.{name}')",
    ],
)
def test_what_the_rules_allow(text: str) -> None:
    assert problems(text, "conceptatlas.ranking.result") == []
