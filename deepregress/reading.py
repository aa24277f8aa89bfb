"""How a network reads the columns that a formula feeds it with (METHODS 5, DESIGN 2).

A design knows columns and no networks, a network knows no columns: a `Reading` is what a network
says about its inputs before there are any.

    factors   one 0/1 column per level, or the number of the level (n,) for a learned embedding
    strings   as factors, or as text: tokens (n, length)

References: Guo & Berkhahn (2016), arXiv 1604.06737 (embeddings of factors).
"""

from __future__ import annotations

from dataclasses import dataclass

EMBED_ABOVE = 8
"""Factors of more levels are embedded by default: a 0/1 column for each is as good for fewer."""

MAX_TOKENS = 5_000
"""Tokens of a text that is read as text, by default."""


@dataclass(frozen=True)
class TextReading:
    """How strings become tokens.

    Parameters
    ----------
    max_tokens : int
        At most so many different tokens.
    length : int or None
        Tokens of a text that are read; None: as many as all but 5 % of the training texts have, at
        most 256.
    """

    max_tokens: int = MAX_TOKENS
    length: int | None = None


@dataclass(frozen=True)
class Reading:
    """What a network wants its columns as.

    Parameters
    ----------
    embed_above : int or None
        Factors of more levels come as numbers of their levels, others as 0/1 columns; None: all as
        columns.
    text : TextReading or None
        Strings are text and read like this; None: they are factors.
    """

    embed_above: int | None = None
    text: TextReading | None = None


AS_COLUMNS = Reading()
"""A network of the user that takes numbers."""

BY_DEFAULT = Reading(embed_above=EMBED_ABOVE)
"""The default network."""
