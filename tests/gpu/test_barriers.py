"""No barrier is there for nothing, and no two threads race: by the shim's race detector, in all tests of kernels."""

import pytest
from gpu import record, shim

from sparseshare.kernels.gpu import module

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shim.shim_problem() is not None, reason=str(shim.shim_problem())),
]
KEPT = "// kept: "  # on the line of a barrier that no race shows to be needed, with the reason


def needed_lines(family):
    lines, error = record.needed_barriers(family)
    assert error is None, f"tests of kernels fail with kernels that report races:\n{error}"
    return set(lines)


@pytest.mark.parametrize("family", module.families())
def test_each_barrier_keeps_something_apart(family):
    """Without it two threads of some launch in the tests would race."""
    code = module.source(family)
    text, needed = code.splitlines(), needed_lines(family)
    own = module.source(family).count("\n") - own_lines(family)
    idle = {
        number: line
        for number, line in shim.barriers(code).items()
        if number > own and number not in needed and KEPT not in text[number - 1]
    }
    assert not idle, f"{family}.cu: nothing shows that these barriers are needed: {idle}"


def own_lines(family):
    """Lines of a family's own file, which comes last in its source."""
    return (record.files_folder() / f"{family}.cu").read_text().count("\n")


def test_shared_barriers_keep_something_apart():
    """As above for the files that families share: in one family at least."""
    used, there = set(), {}
    for family in module.families():
        code = module.source(family)
        shared = code.count("\n") - own_lines(family)
        needed = needed_lines(family)
        text = code.splitlines()
        for number, line in shim.barriers(code).items():
            if number <= shared and KEPT not in text[number - 1]:
                key = tuple(text[number - 4 : number + 1])  # the lines before tell it from others
                there[key] = line
                if number in needed:
                    used.add(key)
    assert set(there) == used, f"nothing shows that these are needed: {[key for key in there if key not in used]}"
