"""The fitted model: what a user holds after `fit` (DESIGN section 1).

The tables of estimates come from its base; here are effects, predictions, residuals and drawing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepregress import check, diagnostics, effects, grids, panels, plotting, quantities, saved
from deepregress.data import Frame, Response, prediction_frame
from deepregress.deep import posterior
from deepregress.deep.noise import Masks
from deepregress.errors import PredictionError
from deepregress.estimates import Estimates
from deepregress.inference import delta
from deepregress.linalg import Array, Matrix, Vector
from deepregress.new_response import log_likelihood, response_at
from deepregress.prediction import Labels
from deepregress.series import forecast
from deepregress.survival import baseline_errors

NO_PROBABILITY = "which='quantile' needs at=, the probabilities, such as at=0.9."
Exclude = str | Sequence[str | tuple[str, str]] | None


@dataclass(frozen=True, eq=False)
class FittedModel(Estimates):
    """A fitted semi-structured distributional regression; made by `fit` and `load`.

    Its fields are those of `Estimates`.

    Examples
    --------
    >>> import deepregress as dr
    >>> model = dr.fit("foodexp ~ income", data=dr.datasets.load("engel"))
    >>> model.coef.round(3).to_dict()
    {('loc', '(Intercept)'): 147.475, ('loc', 'income'): 0.485, ('scale', '(Intercept)'): 4.737}
    >>> model.predict({"income": [500.0, 1000.0]}, interval=0.95).round(1)
       estimate  lower  upper
    0     390.1  370.1  410.0
    1     632.7  618.1  647.3
    """

    def partial_effect(
        self,
        term: str,
        parameter: str | None = None,
        *,
        grid: grids.Grid = None,
        level: float = 0.95,
        simultaneous: bool = False,
    ) -> pd.DataFrame:
        """Effect of one term on its predictor, with standard errors and a band.

        Smooths and linear terms of numbers have mean zero over the training rows, factors show the
        difference from their first level. With a numeric `by` it is the effect at `by` = 1. The
        error of a deep term is that of its multiplier, given its networks; `with_uncertainty` adds
        theirs.

        Parameters
        ----------
        term : str
            Its label, such as "s(age)"; "s(x):g" stands for all levels of `by=g`.
        parameter : str, optional
            Which of several that have the term; the first by default.
        grid : int, table or None
            Number of equidistant points (100; 40 a side for two numeric variables), or the values
            themselves. A deep term of more variables is shown at the training rows.
        level : float
            Of the band.
        simultaneous : bool
            Whether the whole curve lies in the band with this probability (by simulation from the
            posterior with a fixed seed), or each of its points.

        Returns
        -------
        DataFrame
            The covariates, effect, se, lower, upper.

        Raises
        ------
        PredictionError
            There is no such term, or the grid lacks a variable.
        """
        quantities.check_level(level, "level")
        place = grids.find(self._predictors, term, parameter)
        shown = grids.shown_at(
            self._predictors, place, self._profile, training=self.frame, grid=grid
        )
        return effects.partial_effect(
            self._predictors,
            place,
            shown,
            self._profile,
            level=level,
            simultaneous=simultaneous,
        )

    def plot(
        self,
        parameter: str | None = None,
        *,
        terms: str | Sequence[str] | None = None,
        parametric: bool = True,
        level: float = 0.95,
    ) -> Figure:
        """Draw every term with its band on one page.

        Curves have a rug and, for the first parameter, partial residuals; functions of two numbers
        their standard error beside them, of three are cut at quantiles of the third; random effects
        are drawn against normal scores.

        Parameters
        ----------
        parameter : str, optional
            Only the terms of this parameter or group of parameters.
        terms : label or sequence of labels, optional
            Only these terms, "s(x)".
        parametric : bool
            Whether linear terms and factors are drawn too.
        level : float
            Of the bands.

        Raises
        ------
        PredictionError
            No predictor has a term, or not these.
        """
        quantities.check_level(level, "level")
        units = self._predictors.of_parameter(parameter)
        places = [place for u in units for place in grids.places(self._predictors, u)]
        if terms is not None:
            places = grids.chosen(places, [terms] if isinstance(terms, str) else terms)
        elif not parametric:
            places = [place for place in places if place.kind != "linear"]
        if not places:
            raise PredictionError("there is nothing to plot: the formula has no such term.")
        source = panels.Source(
            self._predictors, self._profile, *self._training(), self._training_eta, self.edf
        )
        return plotting.effects_figure(
            [panel for place in places for panel in source.panels(place, level)]
        )

    def plot_diagnostics(self, *, seed: int = 0) -> Figure:
        """Draw QQ plot, residuals against fitted, histogram and response against fitted.

        Parameters
        ----------
        seed : int
            Of the randomised residuals of a discrete response.
        """
        _, response = self._training()
        checks = diagnostics.Checks.of(self.family, response, self._training_eta, seed=seed)
        return plotting.checks_figure(checks)

    def check(self, *, subsample: int = 5000, n_rep: int = 400, seed: int = 0) -> check.ModelCheck:
        """Check convergence, basis dimensions and residuals; prints as R's gam.check.

        Parameters
        ----------
        subsample : int
            Of more rows so many are drawn for the test of the basis dimensions.
        n_rep : int
            Shuffles of the residuals in that test.
        seed : int
            Of the draw, the shuffles and the randomised residuals of a discrete response.

        Returns
        -------
        ModelCheck
            `table` has k, edf, k_index and p_value by (parameter, term); `plot()` draws the
            residuals.
        """
        trial = check.Trial(subsample, n_rep, seed)
        return check.check_model(
            self._fit, self.designs, *self._training(), self._training_eta, trial
        )

    def with_uncertainty(
        self, networks: str = "conditional", *, samples: int = 50, seed: int = 0
    ) -> Self:
        """The same model with the uncertainty of its networks in all standard errors.

        Predictions, effects, coefficients, bands and tests then hold the noise of each row's deep
        effects, and what it moves the structured coefficients by (Dorigatti et al. 2023), which is
        nothing where the networks are orthogonal to them. Estimates are the same.

        Parameters
        ----------
        networks : {"conditional", "population", "members", "dropout", "laplace"}
            Given the networks; for structured effects in the population (`cov_population`); the
            jackknife over the cross-fitted networks, which each lack a fold; Monte Carlo dropout,
            for networks with Dropout; a last-layer Laplace approximation, its prior precision by
            the evidence.
        samples : int
            Thinned networks of "dropout".
        seed : int
            Of their masks.

        Raises
        ------
        PredictionError
            The kind is unknown or the networks have no such uncertainty; or the model was saved
            without its training rows.

        Examples
        --------
        >>> import deepregress as dr
        >>> engel = dr.datasets.load("engel")
        >>> training = dr.Training(epochs=20, folds=2)
        >>> formula = "foodexp ~ deep(income)"
        >>> model = dr.fit(formula, engel, training=training, seed=1, verbose=0)
        >>> given = model.predict(engel, se=True)["se"]
        >>> bool((model.with_uncertainty("members").predict(engel, se=True)["se"] >= given).all())
        True
        """
        given = self.inference
        if self.noise is not None:
            given = dataclasses.replace(given, V=self.noise.conditional)
        conditional = dataclasses.replace(self, inference=given, noise=None)
        inference, noise = posterior.with_noise(
            networks,
            conditional._predictors,
            given,
            self._every_row(),
            population=None if self.deep is None else self.deep.population,
            masks=Masks(samples, seed),
        )
        return dataclasses.replace(conditional, inference=inference, noise=noise)

    def predict(
        self,
        newdata: Any = None,
        which: str = "mean",
        *,
        at: Any = None,
        se: bool = False,
        interval: float | None = None,
        exclude: Exclude = None,
        parameter: str | None = None,
    ) -> Any:
        """Predict from the response distribution of each row.

        Parameters
        ----------
        newdata : table, dict or path, optional
            Rows to predict; those of training by default. The response may be missing. A table on
            disk is read into memory.
        which : str
            "mean", "median", "variance"; "params" (on their own scale), "linear" (predictors),
            "terms" (their summands, which add up to them); "quantile", "cdf", "pdf", "logpdf",
            "survival", "hazard", "cumhazard" at `at`, "rmst", the mean of what is at most `at`;
            "prob", the probability of each level, or of
            the counts in `at`; and what only
            some families have: "covariance" and "correlation" (n_obs, d, d) of a vector,
            "class_prob" of a mixture.
        at : number or array, optional
            Probabilities for "quantile", else values of the response: one number, (m,) values for
            all rows, or (n_obs, m) values of the rows. By default the response in `newdata`.
        se : bool
            Add standard errors of the estimate, for "mean", "median", "params", "linear", "terms",
            and at `at` for "quantile", "cdf", "survival", "hazard", "cumhazard".
        interval : float, optional
            Add confidence limits of this level for the estimate, on the scale of the predictor and
            carried through the link, or on one without bounds. For a prediction interval ask for
            quantiles.
        exclude : label or sequence of labels, optional
            Terms whose effect is set to zero, "s(x)" or ("scale", "s(x)"); columns that only they
            need may be missing.
        parameter : str, optional
            One parameter, or group of them, of "params", "linear" or "terms".

        Returns
        -------
        array or DataFrame
            (n_obs,), or (n_obs, m) with several values in `at`; a table by parameter for "params",
            "linear" and "terms", by level for "prob"; columns estimate, se, lower, upper with
            `se` or `interval`.

        Raises
        ------
        PredictionError
            The rows do not fit the model, or the arguments do not fit each other.
        """
        quantities.check(
            which,
            at=at,
            uncertain=se or interval is not None,
            parameter=parameter,
            further=tuple(self.family.further),
        )
        quantities.check_level(interval, "interval")
        excluded = self._predictors.excluded(exclude)
        chosen = self._predictors.of_parameter(parameter)
        error = quantities.Error(se, interval)
        frame = self._rows(newdata, excluded)
        if which == "terms":
            table = effects.terms_table(
                self._predictors,
                chosen,
                frame,
                self._profile,
                excluded=excluded,
                error=error,
            )
            return indexed(table, newdata)
        eta = self._eta(newdata, frame, excluded)
        cov = self._predictors.eta_cov(frame, excluded) if error.wanted else None
        if which in quantities.OF_PREDICTORS:
            answer = quantities.Answer(self.family, eta, cov, error)
            return indexed(answer.of(which, chosen, parameter), newdata)
        rows = frame, excluded
        return self._answer(newdata, which, (eta, cov), at=at, error=error, rows=rows)

    def distribution(self, newdata: Any = None) -> Any:
        """Response distribution of each row, a `tfd.Distribution` of batch shape (n_obs,)."""
        frame = self._rows(newdata, frozenset())
        return self.family.distribution(self._eta(newdata, frame, frozenset()))

    def sample(self, newdata: Any = None, n: int = 1, *, seed: int = 0) -> Array:
        """Draws from the response distribution of each row, (n, n_obs)."""
        frame = self._rows(newdata, frozenset())
        return self.family.sample(self._eta(newdata, frame, frozenset()), n, seed=seed)

    def forecast(
        self, steps: int | None = None, newdata: Any = None, *, n: int = 1000, seed: int = 0
    ) -> forecast.Forecast:
        """Simulate the rows that follow those of training, of a model with `lag()`.

        `steps` of each series, or the rows of `newdata` with their covariates; `n` paths.
        """
        wanted = forecast.Wanted(steps, newdata, n, seed)
        return forecast.forecast(self._predictors, self.series, self._profile.response, wanted)

    def residuals(self, kind: str = "quantile", *, seed: int = 0) -> Vector:
        """Residuals of the training rows, (n_obs,); of data on disk those of `model.frame`.

        Parameters
        ----------
        kind : {"quantile", "response", "pearson", "deviance"}
            Quantile residuals are standard normal if the model is right; Pearson and deviance
            residuals are divided by the dispersion.
        seed : int
            Quantile residuals of a discrete response are randomised.
        """
        _, response = self._training()
        return diagnostics.residuals(self.family, response, self._training_eta, kind, seed=seed)

    def log_score(self, newdata: Any = None) -> float:
        """Mean log density of the responses, natural log; larger is better.

        Of the training rows (weighted as in the fit) by default; compare models by new rows.
        """
        frame = self._rows(newdata, frozenset())
        return self._score(newdata, self._eta(newdata, frame, frozenset()))

    def save(self, path: str | Path, *, data: bool = True) -> None:
        """Write the model to a file; `load` gives the same predictions bit for bit.

        Parameters
        ----------
        path : str or Path
        data : bool
            Whether the training rows go along; without them residuals, diagnostics and partial
            residuals are not available, and predictions need new data.

        Raises
        ------
        PredictionError
            A link is a bijector of your own, which has no name to be saved by.
        """
        saved.write(path, self._content(data=data))

    def _content(self, *, data: bool) -> dict[str, Any]:
        """The fields that are saved."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        content |= {"profile": self._profile, "goodness": self._goodness, "stored": None}
        return content if data else {**content, "frame": None, "response": None}

    def _rows(self, newdata: Any, excluded: Labels) -> Frame:
        if newdata is None:
            return self._every_row()[0]
        table = newdata if self.series is None else self.series.extended(newdata)
        return prediction_frame(table, self._predictors.variables(excluded))

    def _response(self, newdata: Any) -> Response:
        if newdata is None:
            return self._every_row()[1]
        text, levels = self._profile.response, self._profile.response_levels
        return response_at(newdata, text, levels, known=self.family.known)

    def _log_likelihood(self, newdata: Any, eta: Matrix) -> Vector:
        return log_likelihood(self.family, self._response(newdata), eta)

    def _eta(self, newdata: Any, frame: Frame, excluded: Labels) -> Matrix:
        if newdata is None and not excluded:
            return self._training_eta
        return self._predictors.eta(frame, excluded)

    def _score(self, newdata: Any, eta: Matrix) -> float:
        weights = self._training()[1].weights if newdata is None else None
        return float(np.average(self._log_likelihood(newdata, eta), weights=weights))

    def _answer(
        self,
        newdata: Any,
        which: str,
        predicted: tuple[Matrix, Matrix | None],
        *,
        at: Any,
        error: quantities.Error,
        rows: tuple[Frame, Labels] | None = None,
    ) -> Any:
        """What `predict` says at predictors of the rows and their covariance."""
        eta, cov = predicted
        if which in self.family.further:
            known = self._response(newdata).rows() if self.family.further[which] else {}
            return indexed(quantities.further(self.family, which, eta, known), newdata)
        if cov is not None and which in ("median", *quantities.SMOOTH_AT):
            table = self._at_with_error(newdata, which, (eta, cov), at=at, error=error, rows=rows)
            return indexed(table, newdata)
        if which in quantities.AT:
            return indexed(self._at(newdata, which, eta, at), newdata)
        return indexed(quantities.rowwise(self.family, which, eta), newdata)

    def _at_with_error(
        self,
        newdata: Any,
        which: str,
        predicted: tuple[Matrix, Matrix],
        *,
        at: Any,
        error: quantities.Error,
        rows: tuple[Frame, Labels] | None,
    ) -> pd.DataFrame:
        eta, cov = predicted
        own = at is None and which not in ("median", "quantile")
        if own:
            response = self._response(newdata)
            eta, at = self.family.with_known(eta, response.rows()), response.y[:, None]
        if at is None and which == "quantile":
            raise PredictionError(NO_PROBABILITY)
        values = np.asarray(0.5 if which == "median" else at)
        if self.family.partial and rows is not None:
            table = baseline_errors.with_error(
                self._predictors, (*rows, eta), which, at=values, error=error
            )
        else:
            table = delta.with_error(self.family, which, eta, cov, at=values, error=error)
        return pd.DataFrame(table["0"]) if own else table

    def _at(self, newdata: Any, which: str, eta: Matrix, at: Any) -> Any:
        if which == "prob" and at is None:
            levels = self._profile.response_levels
            return quantities.level_probabilities(self.family, eta, levels)
        if at is None and which == "quantile":
            raise PredictionError(NO_PROBABILITY)
        if at is None:
            if which in ("pdf", "logpdf"):
                value = self._log_likelihood(newdata, eta)
                return np.exp(value) if which == "pdf" else value
            response = self._response(newdata)
            eta = self.family.with_known(eta, response.rows())
            return quantities.at_values(self.family, which, eta, response.y[:, None])[:, 0]
        return quantities.at_values(self.family, which, eta, at)


def indexed(answer: Any, newdata: Any) -> Any:
    """A table with the index of the user's own; anything else as it is."""
    if isinstance(answer, pd.DataFrame) and isinstance(newdata, pd.DataFrame):
        return answer.set_axis(newdata.index, axis=0)
    return answer
