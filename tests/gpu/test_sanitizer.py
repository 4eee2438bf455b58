"""All tests of kernels once more with kernels under AddressSanitizer: nothing is read or written out of bounds."""

import pytest
from gpu import record, shim

from sparseshare.kernels.gpu import module

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shim.shim_problem() is not None, reason=str(shim.shim_problem())),
]


@pytest.mark.parametrize("family", module.families())
def test_each_kernel_runs_within_bounds(family):
    launched, error = record.sanitized(family)
    assert error is None, f"tests of kernels fail under AddressSanitizer:\n{error}"
    missing = set(module.signatures(family)) - {expression.partition("<")[0] for expression in launched}
    assert not missing, f"{family}.cu: no test launches {sorted(missing)}"
