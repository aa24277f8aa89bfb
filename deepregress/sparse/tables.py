"""What a summary says of sparse terms: how strong, how many, and how exact (METHODS 6).

    lam, groups (coefficients of a lasso), how many are not zero, edf       by (parameter, term)
    estimate and standard error of linear coefficients that are not zero    by (parameter, name)

Standard errors and tests are given what was selected: they do not allow for the selection, nor for
the shrinkage of the estimates, so there are no p-values of sparse coefficients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from deepregress.goodness import Fit
from deepregress.printing import printed


@dataclass(frozen=True, eq=False)
class SparseTables:
    """Tables of the sparse terms of a fitted model.

    Parameters
    ----------
    terms : DataFrame
        lam, n_groups, n_selected, edf by (parameter, term); no lam for networks that gained nothing
        on held-out rows, which leave before it is chosen.
    coefficients : DataFrame
        estimate, std_error of linear sparse coefficients that are not zero, by (parameter, name).
    criterion : str
        What chose lam; "" where it was given.
    residual : float
        Distance from the optimality conditions, as a share of the largest penalty; NaN where all
        sparse terms left before.
    refit : bool
        Whether what was selected was fitted again without the penalty.
    """

    terms: pd.DataFrame = field(repr=False)
    coefficients: pd.DataFrame = field(repr=False)
    criterion: str
    residual: float
    refit: bool

    @classmethod
    def of(cls, model: Fit) -> SparseTables | None:
        """Collect them; None for a model without sparse terms."""
        selected = model.solution.selected
        gated = [
            (unit.parameter, network.gate.term)
            for unit in model.predictors.units
            for network in unit.design.networks
            if network.gate is not None
        ]
        if selected is None:
            return cls._without(gated) if gated else None
        edf = dict.fromkeys(selected.terms, 0.0)
        errors, rows = np.sqrt(model.predictors.estimate.V.diagonal()), {}
        coef = model.predictors.estimate.coef
        gates = dict.fromkeys(selected.terms, 0)
        for unit in model.predictors.units:
            for block, columns in unit.blocks.values():
                if block.sparsity is None:
                    continue
                place = np.arange(columns.start, columns.stop) + unit.columns.start
                term = (unit.parameter, block.sparsity.term)
                edf[term] += float(model.inference.edf[place].sum())
                for name, j in zip(block.names, place, strict=True):
                    if block.kind == "sparse" and selected.active[j]:
                        rows[unit.parameter, name] = (coef[j], errors[j])
            for network in unit.design.networks:
                if network.gate is not None and (unit.parameter, network.gate.term) in edf:
                    term = (unit.parameter, network.gate.term)
                    gates[term] += 1
                    # a network whose multiplier would be negative has left before the others
                    if network.label in unit.multipliers:
                        edf[term] += float(model.inference.edf[unit.multipliers[network.label]])
        terms = pd.DataFrame(
            {
                "lam": selected.lam,
                "n_groups": np.maximum(selected.n_groups, list(gates.values())),
                "n_selected": selected.n_selected,
                "edf": list(edf.values()),
            },
            index=pd.MultiIndex.from_tuples(selected.terms, names=["parameter", "term"]),
        )
        index = pd.MultiIndex.from_arrays(
            [[parameter for parameter, _ in rows], [name for _, name in rows]],
            names=["parameter", "name"],
        )
        gone = [term for term in gated if term not in edf]
        terms = pd.concat([terms, cls._without(gone).terms]) if gone else terms
        columns_ = ["estimate", "std_error"]
        coefficients = pd.DataFrame(list(rows.values()), index=index, columns=columns_)
        return cls(terms, coefficients, selected.criterion, selected.residual, selected.refit)

    @classmethod
    def _without(cls, gated: Sequence[tuple[str, str]]) -> SparseTables:
        """Of networks that left before any lam was looked for."""
        counts = Counter(gated)
        zeros = dict.fromkeys(counts, 0)
        names = ["parameter", "term"]
        terms = pd.DataFrame(
            {"lam": np.nan, "n_groups": counts, "n_selected": zeros, "edf": 0.0},
            index=pd.MultiIndex.from_tuples(list(counts), names=names),
        )
        none = pd.MultiIndex.from_arrays([[], []], names=["parameter", "name"])
        coefficients = pd.DataFrame({"estimate": 0.0, "std_error": 0.0}, index=none)
        return cls(terms, coefficients, "", np.nan, refit=False)

    def lines(self, parameter: str) -> list[str]:
        """The section of one parameter, as text."""
        lines: list[str] = []
        terms = _rows_of(self.terms, parameter)
        if len(terms):
            header = ["lam", "Groups", "Selected", "edf"]
            lines += ["Sparse terms:", *printed(terms, header, joint=0), ""]
        coefficients = _rows_of(self.coefficients, parameter)
        if len(coefficients):
            lines += ["Sparse coefficients that are not zero:"]
            lines += [*printed(coefficients, ["Estimate", "Std. Error"], joint=2), ""]
        return lines

    def foot(self) -> list[str]:
        """What stands below all tables."""
        if np.isnan(self.residual):
            return ["Sparse terms: none gained anything on held-out rows, so lam was not needed"]
        chosen = f"lam chosen by {self.criterion}" if self.criterion else "lam given"
        fitted = "; refitted without the penalty" if self.refit else ""
        return [
            f"Sparse terms: {chosen}, optimality conditions met to {self.residual:.1g}{fitted}",
            "Standard errors and tests are given the selection and do not allow for it",
        ]


def _rows_of(table: pd.DataFrame, parameter: str) -> pd.DataFrame:
    known = table.index.get_level_values("parameter") == parameter
    return table[known].droplevel("parameter")
