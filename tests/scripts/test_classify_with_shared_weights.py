"""examples/classify_with_shared_weights.py runs as a user runs it; few values that are shared do well."""

import re

from scripts.example import MARKS, assert_one_picture, run

pytestmark = MARKS


def test_few_values_and_few_activations(tmp_path):
    printed = run("classify_with_shared_weights.py", cwd=tmp_path)
    assert_one_picture(tmp_path, "classify_with_shared_weights.png", 350, 1200)
    assert float(re.search(r"([\d.]+)% right of 450 digits", printed).group(1)) > 94
    densities = re.search(r"([\d.]+)% and ([\d.]+)% of the activations", printed).groups()
    assert all(18 < float(density) < 22 for density in densities)
    assert re.search(r"^total +10,860 +339,978", printed, flags=re.MULTILINE)
    rows = re.findall(r"1/\d+ +([\d,]+) +([\d.]+)% +\d+ +([\d,]+) +([\d.]+)%", printed)
    assert len(rows) == 3
    for values, right, own, other in rows:
        assert 0.9 < int(values.replace(",", "")) / int(own.replace(",", "")) < 1.1
        assert float(right) > 90 and float(right) > float(other) - 1
    assert float(rows[-1][1]) > float(rows[-1][3]) + 3  # where there are few
