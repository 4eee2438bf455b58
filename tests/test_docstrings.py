"""What the docstrings promise: the parameters that exist, their defaults, and examples that run."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import sparseshare
import sparseshare.network

PACKAGE = Path(sparseshare.__file__).parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules():
    """Names of all modules but those that need a GPU."""
    for path in sorted(PACKAGE.rglob("*.py")):
        names = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "gpu" not in names:
            yield ".".join(names[:-1] if names[-1] == "__init__" else names)


def sections(documented):
    """Sections of a numpydoc docstring, text by title."""
    found = re.split(r"^(\S.*)\n-{3,}$", inspect.cleandoc(documented.__doc__), flags=re.MULTILINE)
    return {"summary": found[0], **dict(zip(found[1::2], found[2::2], strict=True))}


def described_parameters(text):
    """Type line of every parameter of a section, by name."""
    lines = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: : (.*))?$", text, flags=re.MULTILINE)
    return {name: kind for names, kind in lines for name in names.split(", ")}


# Layers and sharing rules are called by names that are too plain for the top level.
PUBLIC = {
    name: getattr(room, name)
    for room in (sparseshare.network, sparseshare)
    for name in room.__all__
    if callable(getattr(room, name))
}
public = pytest.mark.parametrize("name", sorted(PUBLIC))


@public
def test_parameters_are_those_of_the_signature(name):
    documented = PUBLIC[name]
    described = described_parameters(sections(documented).get("Parameters", ""))
    signature = inspect.signature(documented).parameters
    assert list(described) == list(signature)
    for parameter in signature.values():
        if parameter.default is not parameter.empty and not inspect.isfunction(parameter.default):
            default = f"default={parameter.default!r}".replace("'", '"')
            assert default in described[parameter.name].replace("'", '"'), f"{parameter.name} has {default}"


@public
def test_there_is_a_summary_and_an_example(name):
    found = sections(PUBLIC[name])
    assert found["summary"].strip() and ">>>" in found["Examples"]


@public
def test_public_methods_are_documented(name):
    documented = PUBLIC[name]
    if inspect.isclass(documented):
        for method, function in inspect.getmembers(documented, inspect.isfunction):
            if not method.startswith("_") and function.__module__.startswith("sparseshare"):
                assert inspect.getdoc(function), method


@pytest.mark.parametrize("module", list(modules()))
def test_examples_of_docstrings_run(module):
    assert doctest.testmod(import_module(module), optionflags=OPTIONS).failed == 0


def test_examples_of_the_readme_run():
    readme = PACKAGE.parent / "README.md"
    if not readme.exists():
        pytest.skip("an installed package has no README beside it")
    assert doctest.testfile(str(readme), module_relative=False, optionflags=OPTIONS).failed == 0
