"""What the pictures of a fitted model show: one or more panels for each term.

    curve       effect of a number with its band; levels of factors as further curves
    levels      effects of the levels of factors with their intervals
    surface     effect of two numbers, and its standard error beside it; of three: slices at the
                10, 50 and 90 % quantiles of the third
    quantiles   random effects against normal scores, with their intervals
    rows        distribution over the training rows of an effect that no grid can show

Panels are tables; module `plotting` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from deepregress.basis.random_effect import RandomEffect
from deepregress.data import Frame
from deepregress.effects import effect, partial_effect, working_residuals
from deepregress.grids import Grid, Place, Profile, grid_of, places, shown_at
from deepregress.inference.covariance import normal_quantile
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Predictors
from deepregress.response import Response
from deepregress.terms.smooth import SmoothColumns

MOST_CURVES = 6
"""Of more levels the curves are thin, of one colour and without bands."""
MOST_SURFACES = 4
"""Of more levels the first have a surface."""
SLICED = 3
SLICES = (0.1, 0.5, 0.9)
"""A function of three numbers is shown at these quantiles of the third."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a term.

    Parameters
    ----------
    kind : {"curve", "levels", "surface", "error", "quantiles", "rows"}
    title : str
        Parameter and term.
    note : str
        What stands below the title: edf, slice.
    ylabel : str
    table : DataFrame
        Covariates, effect, se, lower, upper.
    numeric, factors : tuple of str
        Covariates of the table by kind.
    rug : dict of str to Vector
        Values of the numeric covariates in the training rows.
    residuals : Vector or None
        Partial residuals of the training rows, beside `rug`.
    together : str
        Panels with the same text have one vertical scale (or one scale of colours); "" for none.
    """

    kind: str
    title: str
    note: str
    ylabel: str
    table: pd.DataFrame
    numeric: tuple[str, ...]
    factors: tuple[str, ...]
    rug: dict[str, Vector]
    residuals: Vector | None = None
    together: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """What panels are made from."""

    predictors: Predictors
    profile: Profile
    frame: Frame
    response: Response
    eta: Matrix
    edf: pd.Series

    def panels(self, place: Place, level: float) -> list[Panel]:
        """The panels of one term."""
        if self._random(place):
            return [self._quantiles(place, level)]
        numeric, factors = self.profile.axes(place)
        if (
            place.kind == "smooth"
            and len(numeric) == len(place.variables) == SLICED
            and not factors
        ):
            return list(self._slices(place, numeric, level))
        if grid_of(place, self.profile, 2) is None or not (numeric or factors):
            shown = self._shown(place, None, level)
            return [replace(self._empty(place, "rows", (), ()), table=shown)]
        shown = self._shown(place, None, level)
        if len(numeric) == 2:
            return list(self._surfaces(place, numeric, factors, shown))
        kind = "curve" if numeric else "levels"
        panel = self._empty(place, kind, tuple(numeric), tuple(factors))
        return [replace(panel, table=shown, residuals=self._residuals(place, tuple(numeric)))]

    def _shown(self, place: Place, grid: Grid, level: float) -> pd.DataFrame:
        return partial_effect(
            self.predictors,
            place,
            shown_at(self.predictors, place, self.profile, training=self.frame, grid=grid),
            self.profile,
            level=level,
            simultaneous=False,
        )

    def _empty(
        self, place: Place, kind: str, numeric: tuple[str, ...], factors: tuple[str, ...]
    ) -> Panel:
        """A panel without its table."""
        unit = self.predictors.units[place.unit]
        label, link = place.labels[0], self.predictors.family.parameters[place.unit].link.name
        scale = unit.parameter if link == "identity" else f"{link}({unit.parameter})"
        n_units = len(self.predictors.units)
        several = sum(bool(places(self.predictors, u)) for u in range(n_units)) > 1
        rows = self._rows(place)
        _, levels = self.profile.axes(place)
        return Panel(
            kind=kind,
            title=f"{unit.parameter}:  {label}" if several else label,
            note=self._note(place, unit.parameter, levels if kind != "quantiles" else {}),
            ylabel=f"effect on {scale}",
            table=pd.DataFrame(),
            numeric=numeric,
            factors=factors,
            rug={name: np.asarray(self.frame[name], dtype=float)[rows] for name in numeric},
            together=f"{unit.parameter} {unit.blocks[label][0].term}" if place.levels else "",
        )

    def _random(self, place: Place) -> bool:
        """Whether a term is a random effect."""
        if place.kind != "smooth":
            return False
        recipe = self.predictors.units[place.unit].blocks[place.labels[0]][0].recipe
        return isinstance(recipe, SmoothColumns) and isinstance(recipe.basis, RandomEffect)

    def _quantiles(self, place: Place, level: float) -> Panel:
        """Predicted random effects, ordered; those of slopes at a slope variable of one."""
        unit, label = self.predictors.units[place.unit], place.labels[0]
        block, _ = unit.blocks[label]
        at, estimate = unit.places[label], self.predictors.estimate
        se = np.sqrt(estimate.V.diagonal()[at])
        width = normal_quantile(level) * se
        value = estimate.coef[at]
        table = pd.DataFrame(
            {"level": block.names, "effect": value, "se": se}
            | {"lower": value - width, "upper": value + width}
        )
        panel = self._empty(place, "quantiles", (), ())
        _, factors = self.profile.axes(place)
        slope = [name for name in place.variables if name not in factors]
        per = f" per unit of {' x '.join(slope)}" if slope else ""
        return replace(
            panel,
            note=f"{panel.note}, {len(at)} levels",
            ylabel=panel.ylabel + per,
            table=table.sort_values("effect", kind="stable", ignore_index=True),
        )

    def _surfaces(
        self,
        place: Place,
        numeric: Sequence[str],
        factors: Mapping[str, Sequence[object]],
        shown: pd.DataFrame,
    ) -> Iterator[Panel]:
        """A surface and its standard error; with factors surfaces of the first levels."""
        panel = self._empty(place, "surface", tuple(numeric), tuple(factors))
        if not factors:
            yield replace(panel, table=shown)
            yield _error_of(replace(panel, table=shown))
            return
        groups = list(shown.groupby(list(factors), observed=True, sort=False))
        for key, part in groups[:MOST_SURFACES]:
            at = ", ".join(f"{name} = {_text(v)}" for name, v in zip(factors, key, strict=True))
            yield replace(
                panel,
                note=f"{panel.note.split(', ')[0]}, at {at}"
                + (f" ({MOST_SURFACES} of {len(groups)})" if len(groups) > MOST_SURFACES else ""),
                table=part,
                factors=(),
                together=f"{panel.title} levels",
            )

    def _slices(self, place: Place, numeric: Sequence[str], level: float) -> Iterator[Panel]:
        """Surfaces of the first two of three numbers at quantiles of the third."""
        *axes, third = numeric
        panel = self._empty(place, "surface", tuple(axes), ())
        values = np.quantile(np.asarray(self.frame[third], dtype=float), SLICES)
        flat = replace(place, variables=tuple(axes))
        points = grid_of(flat, self.profile, None)
        for share, value in zip(SLICES, values.tolist(), strict=True):
            at = pd.DataFrame(points).assign(**{third: value})
            yield replace(
                panel,
                note=f"{panel.note}, at {third} = {value:.3g} ({100 * share:.0f} % quantile)",
                table=self._shown(place, at, level),
                together=f"{panel.title} slices",
            )

    def _rows(self, place: Place) -> Array:
        """Training rows that the term is about: all, or those of the level of its `by`."""
        if not place.levels:
            return np.arange(self.frame.n_obs)
        return np.flatnonzero(np.asarray(self.frame[place.by] == place.levels[0]))

    def _note(self, place: Place, parameter: str, factors: Mapping[str, Sequence[object]]) -> str:
        label = place.labels[0]
        curves = math.prod(map(len, factors.values()))
        each = f", {curves} levels of {' x '.join(factors)}" if curves > MOST_CURVES else ""
        if place.kind == "smooth":
            unit = f", at {place.by} = 1" if place.by and not place.levels else ""
            return f"edf {self.edf[parameter, label]:.2f}{unit}{each}"
        if place.kind == "linear":
            return ""
        value = effect(self.predictors, place, self.frame, self.profile).value
        total = float(self.eta[:, place.unit].var())
        share = float(value.var()) / total if total > 0 else 0.0
        return f"sd {value.std():.2g}, {100 * share:.0f} % of the variance of the predictor"

    def _residuals(self, place: Place, numeric: tuple[str, ...]) -> Vector | None:
        """Partial residuals where they can be read: curves of the first parameter of a number."""
        family, response = self.predictors.family, self.response
        single = (
            len(numeric) == 1 and len(place.variables) == 1 and not (place.by and not place.levels)
        )
        readable = response.plain and response.lower.ndim == 1 and not family.takes_levels
        if not single or place.unit != 0 or not readable or response.trials is not None:
            return None
        value = effect(self.predictors, place, self.frame, self.profile).value
        added = working_residuals(self.predictors, place.unit, self.eta, response.lower)
        residuals = np.asarray((value + added)[self._rows(place)])
        return residuals if np.isfinite(residuals).all() else None


def _error_of(panel: Panel) -> Panel:
    """The standard error of a surface as a panel of its own."""
    return replace(panel, kind="error", ylabel="standard error", note="standard error")


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
