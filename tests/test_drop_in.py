"""scikit-learn's own tests of these functions and classes, run on ours: nothing but the imports is replaced.

The sources are read from the installed scikit-learn. Every case is a case of its own here; a traceback shows
scikit-learn's file. The cases that cannot hold are listed with their reason, and each must fail.
"""

import ast
from pathlib import Path

import pytest
import sklearn

SOURCES = ("decomposition/tests/test_dict_learning.py", "linear_model/tests/test_omp.py")
REPLACED = {
    "DictionaryLearning",
    "MiniBatchDictionaryLearning",
    "SparseCoder",
    "dict_learning",
    "dict_learning_online",
    "orthogonal_mp",
    "orthogonal_mp_gram",
    "sparse_encode",
}
# A name stands for all cases of a test, a name with brackets for one.
EXCEPTIONS = {
    "test_update_dict": "tests the private function _update_dict",
    "test_sparse_encode_unavailable_positivity[omp]": "positive codes by omp are offered here",
}

pytestmark = pytest.mark.filterwarnings("default")  # scikit-learn's tests say themselves which warnings matter


def replace_imports(tree, package="sparseshare"):
    """Take the replaced names from `package` instead of scikit-learn; leave out its private modules."""
    body = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith(
            ("sklearn.decomposition", "sklearn.linear_model")
        ):
            ours = [alias for alias in node.names if alias.name in REPLACED]
            theirs = [alias for alias in node.names if alias.name not in REPLACED]
            private = node.module.rpartition(".")[2].startswith("_")
            for module, names in ((package, ours), (node.module, [] if private else theirs)):
                if names:
                    body.append(ast.copy_location(ast.ImportFrom(module, names, level=0), node))
        else:
            body.append(node)
    tree.body = body
    return tree


def collect(source, **options):
    """Tests of one of scikit-learn's files, by name."""
    path = Path(sklearn.__file__).parent / source
    if not path.exists():
        pytest.fail(f"{path} is missing: install a scikit-learn that comes with its tests", pytrace=False)
    tree = replace_imports(ast.parse(path.read_text(encoding="utf-8")), **options)
    namespace = {"__name__": f"drop_in_{path.stem}", "__file__": str(path)}
    exec(compile(tree, path, "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.startswith("test_")}


for _source in SOURCES:
    _tests = collect(_source)
    assert _tests and not _tests.keys() & globals().keys(), f"{_source} repeats a name of the other file"
    globals().update(_tests)


@pytest.fixture(autouse=True)
def listed_exceptions(request):
    """Expect the listed cases to fail, strictly: one that passes has to leave the list."""
    name = request.node.name
    reason = EXCEPTIONS.get(name) or EXCEPTIONS.get(name.partition("[")[0])
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def test_the_list_names_existing_tests():
    assert {name.partition("[")[0] for name in EXCEPTIONS} <= globals().keys()
