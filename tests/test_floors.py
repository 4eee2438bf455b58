"""The rules of the house: what a room may import. Files are read with `ast`, nothing is imported."""

import ast
import shutil
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sparseshare

PACKAGE = Path(sparseshare.__file__).parent
FLOORS = {
    "image": 6,
    "model_selection": 6,
    "distributed": 6,
    "plotting": 6,
    "learning": 5,
    "network": 5,
    "coding": 4,
    "convolution": 4,
    "optimization": 3,
    "kernels/cpu": 2,
    "kernels/gpu": 2,
    "kernels/dispatch": 2,
    "foundation": 1,
}
FOUNDATION = {
    "validation",
    "version",
    "devices",
    "threads",
    "callbacks",
    "metrics",
    "datasets",
    "staging",
    "atomic",
    "buffering",
    "checkpoints",
    "fingerprints",
    "states",
    "sources",
    "mapping",
    "progress",
    "outputs",
    "variance",
}
# Where a heavy library may be imported, and whether only inside functions.
LIBRARIES = {
    "numba": [("kernels/cpu", False)],
    "llvmlite": [("kernels/cpu", False)],
    "cupy": [("kernels/gpu", True), ("foundation/devices", True)],
    "cupyx": [("kernels/gpu", True), ("foundation/devices", True)],
    "dask": [("distributed", False)],
    "distributed": [("distributed", False)],
    "matplotlib": [("plotting", True)],
}
BANNED_NAMES = {"utils", "helpers", "common", "manager", "base"}


def room_of(module):
    """Room of a module given as path parts below the package, or None for what belongs to no room."""
    if not module:
        return None
    if module[0] in FOUNDATION:
        return "foundation"
    return "/".join(module[:2]) if module[0] == "kernels" else module[0]


def parts(path, package):
    relative = path.relative_to(package).with_suffix("").parts
    return relative[:-1] if relative[-1] == "__init__" else relative


@cache
def scan(text):
    """Statements of a file, its imports as (node, inside a function), and lines where modules are fetched by name."""
    tree, found, fetched = ast.parse(text), [], []
    waiting = [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append((node, inside))
        elif isinstance(node, ast.Call):
            if getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
                fetched.append(node.lineno)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]
    return tree.body, found, fetched


def imports(found, here, is_package, modules):
    """(line, target, inside a function, relative) of every import; target is a tuple of names, package included."""
    for node, inside in found:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split(".")), inside, False
            continue
        target = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            up = node.level - (1 if is_package else 0)
            target = ("sparseshare", *here[: len(here) - up], *target)
        for alias in node.names:
            # `from .x import y`: y may be a module of its own.
            exact = (*target, alias.name)
            yield node.lineno, exact if exact[1:] in modules else target, inside, bool(node.level)


def violations(package):
    """Every breach of the rules below a folder, as "file:line: what"."""
    files = {parts(path, package): path for path in sorted(package.rglob("*.py"))}
    graph, found = {}, []
    for here, path in files.items():
        body, imported, fetched = scan(path.read_text(encoding="utf-8"))
        room, is_package = room_of(here), path.name == "__init__.py"

        def report(line, what, path=path):
            found.append(f"{path.relative_to(package)}:{line}: {what}")

        if path.stem in BANNED_NAMES:
            report(1, f"a file called {path.stem}: name it for its subject")
        if here and here != ("kernels",) and room not in FLOORS:
            report(1, f"the room {room} has no floor")
            continue
        if is_package:
            for node in body:
                docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                public = isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]
                # The package itself may put an import off until a name is asked for.
                later = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
                later = not here and (later or isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
                if not (docstring or public or later or isinstance(node, ast.Import | ast.ImportFrom)):
                    report(node.lineno, "an __init__.py holds a docstring, imports and __all__")
        if here != ("kernels", "dispatch"):
            for line in fetched:
                report(line, "import_module belongs to kernels/dispatch.py alone")
        for line, target, inside, relative in imports(imported, here, is_package, files):
            if target[0] != "sparseshare":
                for place, only_inside in LIBRARIES.get(target[0], []):
                    if place in (room, f"{room}/{path.stem}"):
                        if only_inside and not inside:
                            report(line, f"{target[0]} is imported outside a function")
                        break
                else:
                    if target[0] in LIBRARIES:
                        report(line, f"{room} imports {target[0]}")
                if target[0] == "sklearn" and here[:1] == ("kernels",):
                    report(line, "kernels know no scikit-learn")
                continue
            below = target[1:]
            if not here:
                continue  # the package itself lists the public names of every room
            if not below:
                report(line, "imports from the package itself, which hides the floor")
                continue
            graph.setdefault(here, set()).add(below)
            other = room_of(below)
            if other == room:
                if not relative and room != "foundation":
                    report(line, f"imports its own room by the absolute name {'.'.join(target)}")
            elif other not in FLOORS or FLOORS[other] >= FLOORS[room]:
                report(line, f"{room} ({FLOORS[room]}) imports {other} ({FLOORS.get(other, 'no floor')})")
            elif relative:
                report(line, f"imports another room, {other}, by a relative name")
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        found.append("a ring of imports: " + " <- ".join("/".join(module) for module in error.args[1]))
    return found


def test_the_rules_hold():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("coding/planted.py", "from sparseshare.learning.ksvd import KSVD", "coding (4) imports learning (5)"),
        ("coding/planted.py", "def f():\n    import sparseshare.learning", "coding (4) imports learning (5)"),
        ("coding/planted.py", "from ..learning import ksvd", "coding (4) imports learning (5)"),
        ("coding/planted.py", "from sparseshare.convolution import x", "coding (4) imports convolution (4)"),
        ("validation.py", "from sparseshare.coding.problem import Problem", "foundation (1) imports coding (4)"),
        ("devices.py", "import cupy", "cupy is imported outside a function"),
        ("validation.py", "def f():\n    import cupy", "foundation imports cupy"),
        ("coding/planted.py", "def f():\n    import numba", "coding imports numba"),
        ("coding/planted.py", "from matplotlib import pyplot", "coding imports matplotlib"),
        ("learning/planted.py", "from sparseshare import sparse_encode", "imports from the package itself"),
        ("learning/planted.py", "from .. import sparse_encode", "imports from the package itself"),
        ("learning/planted.py", "from sparseshare.learning import x", "imports its own room by the absolute name"),
        ("learning/planted.py", "from ..coding import x", "imports another room, coding, by a relative name"),
        ("kernels/cpu/planted.py", "from sklearn.base import BaseEstimator", "kernels know no scikit-learn"),
        ("kernels/cpu/planted.py", "from sparseshare.kernels.dispatch import x", "imports kernels/dispatch (2)"),
        ("coding/planted.py", "from importlib import import_module as m, import_module\nimport_module('x')", "alone"),
        ("coding/planted.py", "__import__('numba')", "import_module belongs to kernels/dispatch.py alone"),
        ("coding/planted.py", "from .planted import x", "a ring of imports"),
        ("coding/utils.py", "", "a file called utils"),
        ("coding/__init__.py", "x = 1", "an __init__.py holds a docstring, imports and __all__"),
        ("coding/__init__.py", "def __getattr__(n): ...", "an __init__.py holds a docstring, imports and __all__"),
        ("attic/planted.py", "", "the room attic has no floor"),
    ],
)
def test_a_planted_breach_is_found(tmp_path, file, text, complaint):
    copy = tmp_path / "sparseshare"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / file).parent.mkdir(exist_ok=True)
    with (copy / file).open("a") as planted:
        planted.write(f"\n{text}\n")
    found = violations(copy)
    assert any(complaint in line and (line.startswith(file) or "ring" in line) for line in found), found
