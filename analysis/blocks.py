"""The further tables below a table, in their order; the page has figures between some of them (``report``)."""

from __future__ import annotations

from clray.analysis import orders
from clray.analysis.comparison import ComparedTable
from clray.analysis.lifelong_table import lifelong_blocks
from clray.analysis.orders import Block
from clray.analysis.other_claims import other_claims
from clray.analysis.protocols_text import protocol_blocks


def blocks(table: ComparedTable) -> list[Block]:
    """The tables about other published numbers, task orders, ways of choosing the settings, and lifelong learning."""
    return [*other_claims(table), *orders.blocks(table), *protocol_blocks(table), *lifelong_blocks(table)]
