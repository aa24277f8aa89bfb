"""Tables of estimates and tests as text, in the layout of R's `printCoefmat`.

estimates, standard errors     one number of decimals for both columns: so many that the smallest
of them keeps four significant digits
edf, Ref.df, statistics        three decimals; what there is no number for is NA
p-values                       three significant digits, "<2e-16" below it, and R's stars
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from deepregress.linalg import Vector

DIGITS = 4
"""Significant digits of the smallest number of a column, as in R."""
DECIMALS = {"k": 0, "k_index": 3, "edf": 3, "ref_df": 3, "statistic": 3}
"""Of columns that have the same in every table."""
SMALLEST_P = 2e-16
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))
LEGEND = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def printed(table: pd.DataFrame, header: Sequence[str], *, joint: int) -> list[str]:
    """Lines of a table; the first `joint` columns share their decimals, p-values get stars."""
    columns: list[list[str]] = []
    values = [table[name].to_numpy(dtype=float) for name in table]
    shared = np.concatenate(values[:joint]) if joint else None
    for name, column in zip(table, values, strict=True):
        if name == "p_value":
            columns.append([_p_value(p) for p in column])
        else:
            places = DECIMALS.get(str(name))
            if places is None:
                places = _decimals(column if shared is None else shared)
            columns.append([_number(value, places) for value in column])
    stars = [_stars(p) for p in table["p_value"]] if "p_value" in table else [""] * len(table)
    labels = [str(label) for label in table.index]
    left = max(len(label) for label in labels)
    widths = [max(len(h), *map(len, c)) for h, c in zip(header, columns, strict=True)]
    top = " " * left + "".join(f"  {h:>{w}}" for h, w in zip(header, widths, strict=True))
    lines = [top]
    for i, label in enumerate(labels):
        cells = "".join(f"  {c[i]:>{w}}" for c, w in zip(columns, widths, strict=True))
        lines.append(f"{label:<{left}}{cells} {stars[i]}".rstrip())
    return lines


def _decimals(values: Vector) -> int:
    """Decimals at which the smallest number keeps DIGITS significant digits, 6 at most."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes):
        return 1
    return int(np.clip(DIGITS - 1 - np.floor(np.log10(sizes.min())), 0, 6))


def _number(value: float, places: int) -> str:
    return "NA" if np.isnan(value) else f"{value:.{places}f}"


def _p_value(p: float) -> str:
    if np.isnan(p):
        return "NA"
    return "<2e-16" if p < SMALLEST_P else f"{p:.3g}"


def _stars(p: float) -> str:
    return next((stars for bound, stars in STARS if p < bound), "")


def short(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"
