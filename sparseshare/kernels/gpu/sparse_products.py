"""Counts of non-zeros. Matrix products skip no zeros here: the dense ones are faster."""


def count_nonzeros(x):
    """See the CPU's `count_nonzeros`; an array of one number."""
    return (x != 0).sum()
