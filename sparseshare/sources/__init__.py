"""Rows that are read piece by piece: memory maps, chunked stores, whatever can be cut, and blocks in their order.

A source has a shape, a dtype and `blocks`; one that can be cut anywhere also gives any rows. What is read is checked
when it is read, and what is wrong with it is said with the number of the block and of its rows.
"""

from .arrays import ArrayRows
from .blocks import Block, BlockError, check_block, rows_a_block, stacked
from .iterables import Blocks
from .opening import as_source, check_source, rows_of
from .source import Source
from .stacks import Stack, stack_of

__all__ = [
    "ArrayRows",
    "Block",
    "BlockError",
    "Blocks",
    "Source",
    "Stack",
    "as_source",
    "check_block",
    "check_source",
    "rows_a_block",
    "rows_of",
    "stack_of",
    "stacked",
]
