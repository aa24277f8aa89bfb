"""What a fit estimated, as tables: the part of `FittedModel` that needs no new rows (DESIGN 1).

`Estimates` is immutable. What it was made of are its fields; everything else is computed when it is
first asked for. Tables are indexed by (parameter, name) or (parameter, term).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from deepregress import quantities, summary
from deepregress.assembly import assemble
from deepregress.data import Frame, Response
from deepregress.deep.decomposition import decomposition
from deepregress.deep.noise import NetworkNoise
from deepregress.design import Design
from deepregress.disk.arrow import Inverse
from deepregress.disk.fit import StoredFit
from deepregress.errors import FitError, PredictionError
from deepregress.families.base import Family
from deepregress.goodness import Fit, Goodness
from deepregress.grids import Profile
from deepregress.inference import comparison
from deepregress.inference import variance_components as components
from deepregress.inference.comparison import Compared
from deepregress.inference.corrected import CorrectedInference, SmoothingUncertainty
from deepregress.inference.covariance import Inference
from deepregress.inference.influence import Protection
from deepregress.linalg import Matrix, Vector
from deepregress.prediction import Deep, Estimate, Predictors
from deepregress.series.lagged import Series
from deepregress.solvers.base import Solution
from deepregress.sparse.tables import SparseTables
from deepregress.summary import Summary


@dataclass(frozen=True, eq=False)
class Estimates:
    """The estimated side of a fitted model.

    Parameters
    ----------
    formula : dict of str to str
        Formula of each parameter as text.
    family : Family
    designs : dict of str to Design
        Recipes of the predictors, in the order of the family's parameters.
    frame, response : Frame, Response or None
        Training rows; None in a model that was saved without them.
    solution : Solution
    inference : Inference
    deep : Deep or None
        Networks, where the formula has any.
    seed : int or None
    method : str
    settings : mapping
        Further arguments of `fit`.
    protection : Protection or None
        Covariates that the means are free of.
    noise : NetworkNoise or None
        Uncertainty of the networks that `inference` and predictions hold.
    profile, goodness : Profile, Goodness or None
        What is needed of the training rows, in a model that was saved.
    stored : StoredFit or None
        All rows of data on disk, of which `frame` and `response` are some.
    series : Series or None
        The lags of the formulas, and the last rows of training.
    """

    formula: Mapping[str, str]
    family: Family = field(repr=False)
    designs: dict[str, Design] = field(repr=False)
    frame: Frame | None = field(repr=False)
    response: Response | None = field(repr=False)
    solution: Solution = field(repr=False)
    inference: Inference = field(repr=False)
    deep: Deep | None = field(repr=False)
    seed: int | None
    method: str
    settings: Mapping[str, Any] = field(repr=False)
    profile: Profile | None = field(default=None, repr=False)
    goodness: Goodness | None = field(default=None, repr=False)
    protection: Protection | None = field(default=None, repr=False)
    noise: NetworkNoise | None = field(default=None, repr=False)
    stored: StoredFit | None = field(default=None, repr=False)
    series: Series | None = field(default=None, repr=False)

    @cached_property
    def coef(self) -> pd.Series:
        """Coefficients by (parameter, name); a deep term has one, the multiplier of its effect."""
        estimate = self._predictors.estimate.coef
        return pd.Series(estimate, index=self._predictors.coef_index, name="coef")

    @cached_property
    def cov(self) -> pd.DataFrame:
        """Bayesian covariance of the coefficients, given the networks or `with_uncertainty`."""
        index = self._predictors.coef_index
        return pd.DataFrame(self.inference.cov, index=index, columns=index)

    @cached_property
    def cov_population(self) -> pd.DataFrame:
        """Covariance with the networks' share: for effects in the population, not in these rows.

        Structured effects take up what they share with the networks in the training rows; in the
        population that share differs (METHODS 5). Equal to `cov` without networks.

        Raises
        ------
        PredictionError
            A factor has so many levels that its coefficients are kept by level.
        """
        deep = self.deep
        if deep is None or all(effect.multiplier == 0.0 for effect in deep.effects):
            return self.cov
        if deep.population is None:
            raise PredictionError(
                "the covariance of effects in the population is not available for a model with "
                "networks and a factor of this many levels; cov is that given the networks."
            )
        given = self.inference.V if self.noise is None else self.noise.conditional
        index = self._predictors.coef_index
        return pd.DataFrame(given.matrix() + deep.population, index=index, columns=index)

    @cached_property
    def std_error(self) -> pd.Series:
        """Standard errors of the coefficients by (parameter, name)."""
        values = np.sqrt(self.inference.V.diagonal())
        return pd.Series(values, index=self._predictors.coef_index, name="std_error")

    @cached_property
    def edf(self) -> pd.Series:
        """Effective degrees of freedom by (parameter, term)."""
        return self._summed(self.inference.edf, "edf")

    @property
    def edf_total(self) -> float:
        """Sum of the effective degrees of freedom; a constant dispersion counts one."""
        return self._fit.edf_total

    @cached_property
    def cov_corrected(self) -> pd.DataFrame:
        """Covariance of the coefficients that allows for the uncertainty of smoothing parameters.

        Of Wood, Pya & Saefken (2016); equal to `cov` where none was estimated.

        Raises
        ------
        FitError
            The model has networks.
        PredictionError
            It was saved without its training rows.
        """
        index = self._predictors.coef_index
        return pd.DataFrame(self._corrected.cov, index=index, columns=index)

    def corrected(self) -> Self:
        """The same model with `cov_corrected` in the place of `cov`.

        Its standard errors, bands, intervals, draws and tests allow for the uncertainty of the
        smoothing parameters; estimates and degrees of freedom are the same.

        Examples
        --------
        >>> import deepregress as dr
        >>> model = dr.fit("accel ~ s(times)", dr.datasets.load("mcycle"))
        >>> se = model.partial_effect("s(times)", grid={"times": [20.0]})["se"]
        >>> wider = model.corrected().partial_effect("s(times)", grid={"times": [20.0]})["se"]
        >>> bool((wider > se).all())
        True
        """
        corrected = dataclasses.replace(self.inference, V=Inverse.dense(self._corrected.cov))
        return dataclasses.replace(self, inference=corrected)

    @cached_property
    def edf2(self) -> pd.Series:
        """Degrees of freedom by (parameter, term), corrected as `cov_corrected`."""
        return self._summed(self._corrected.edf, "edf2")

    @property
    def edf2_total(self) -> float:
        """Sum of the corrected degrees of freedom; a constant dispersion counts one."""
        return float(self._corrected.edf.sum())

    @cached_property
    def sp(self) -> pd.Series:
        """Smoothing parameters by (parameter, term), in mgcv's scaling.

        The penalties of a term with several are numbered as by mgcv: te(x,z)1, te(x,z)2.
        """
        names = [name for unit in self._predictors.units for name in unit.penalty_names]
        return _by_term(dict(zip(names, self.solution.sp.tolist(), strict=True)), "sp")

    @property
    def loglik(self) -> float:
        """Log-likelihood at the fit, natural log, without penalties."""
        return self.solution.loglik

    @property
    def reml(self) -> float:
        """Negative Laplace approximate restricted likelihood; smaller is better."""
        return self.solution.reml

    @property
    def aic(self) -> float:
        """-2 loglik + 2 edf_total."""
        return self._fit.aic

    @property
    def aic_corrected(self) -> float:
        """-2 loglik + 2 edf2_total: R's `AIC` of a fit by mgcv, for choosing between models."""
        return -2.0 * self.loglik + 2.0 * self.edf2_total

    @property
    def bic(self) -> float:
        """-2 loglik + log(n) edf_total, n the sum of the weights."""
        return -2.0 * self.loglik + float(np.log(self._goodness.weight)) * self.edf_total

    @property
    def nobs(self) -> int:
        """Number of training rows."""
        if self.stored is not None:
            return self.stored.objective.n_obs
        saved = self.response is None or self.goodness is not None
        return self._goodness.n_obs if saved else self.response.n_obs  # type: ignore[union-attr]

    @property
    def converged(self) -> bool:
        """Whether the structured solver reached its criterion."""
        return self.solution.status.converged

    @cached_property
    def history(self) -> pd.DataFrame:
        """Epochs of training where there are networks, else iterations of the structured solver."""
        steps: Sequence[Any] = self.solution.trace if self.deep is None else self.deep.history
        return pd.DataFrame([dataclasses.asdict(step) for step in steps])

    @cached_property
    def sparse(self) -> SparseTables | None:
        """Sparse terms: lam, what was selected, how exactly; None where there are none."""
        return SparseTables.of(self._fit)

    @property
    def influence(self) -> pd.DataFrame | None:
        """Protected covariates before and after `orthogonal.protect`; None where there are none.

        Their coefficients in the evaluation model, a generalised linear model of the fitted means.
        """
        return None if self.protection is None else self.protection.influence

    def summary(self) -> Summary:
        """Tables of coefficients, smooths and networks; prints as R's summary.gam."""
        kind = "conditional" if self.noise is None else self.noise.kind
        return summary.summarise(self._fit, self._goodness, self.deep, self.formula, errors=kind)

    def anova(self, *others: Estimates, test: str | None = "auto") -> pd.DataFrame:
        """One test per term; or, given other models of the same data, a comparison with them.

        Terms: Wald tests of linear terms, tests of smooths and random effects being zero. Models:
        analysis of deviance, each model against the one before.

        Parameters
        ----------
        *others : FittedModel
        test : {"auto", "Chisq", "F"} or None
            Between models; "auto": F where a dispersion is estimated.

        Returns
        -------
        DataFrame
            edf, ref_df, test, statistic, p_value by (parameter, term); of several models resid_df,
            resid_dev, df, deviance, statistic, p_value.

        Raises
        ------
        FitError
            The models are of different data, responses or families.
        """
        if others:
            models = [model._compared for model in (self, *others)]
            return comparison.comparison(models, test=test)
        return summary.anova_table(self._fit, self._goodness.weight)

    def variance_components(self, *, level: float = 0.95) -> pd.DataFrame:
        """Standard deviations of random effects, smooths and residuals, with limits.

        Parameters
        ----------
        level : float
            Of the limits; they come from the curvature of the marginal likelihood.

        Returns
        -------
        DataFrame
            std_dev, lower, upper by (parameter, term); one row per penalty. A random effect's is
            the standard deviation of its levels, a smooth's that of its coefficients by its raw
            penalty (mgcv's gam.vcomp), "Residual" the square root of the constant dispersion.

        Raises
        ------
        FitError
            The model has networks.
        PredictionError
            It was saved without its training rows.
        """
        quantities.check_level(level, "level")
        return components.variance_components(
            self._predictors, self.solution, self._uncertainty, level=level
        )

    def decomposition(self) -> pd.DataFrame:
        """How much of each predictor's variance its terms and its networks have.

        With the weighted variance over the training rows, eta = constant + sum_j f_j + sum_k d_k of
        structured terms and offsets f and networks d, the shares
        Var(sum f) / Var(eta)                "structured",
        Var(sum d) / Var(eta)                "deep" and
        2 Cov(sum f, sum d) / Var(eta)       "shared"
        add up to one. The projection keeps networks out of the columns that they were made
        orthogonal to; what they said about them, m_k = c_k mean over members (X C_m), went to the
        structured terms: `moved` is Var(m_k) / Var(eta).

        Returns
        -------
        DataFrame
            By (parameter, part): kind, "structured" or "deep" for a term, "total" for the rows
            "structured", "deep", "shared" and "predictor"; variance, on the scale of the
            predictor; share and moved. Shares of terms add up to that of their sum where the terms
            are uncorrelated. Predictors without variance are left out.

        Raises
        ------
        PredictionError
            The model was saved without its training rows.

        Examples
        --------
        >>> import deepregress as dr
        >>> model = dr.fit("accel ~ s(times)", dr.datasets.load("mcycle"))
        >>> float(model.decomposition().loc[("loc", "s(times)"), "share"])
        1.0
        """
        frame, response = self._training()
        return decomposition(self._predictors, frame, response.weights)

    def sample_coef(self, n: int = 1000, *, seed: int = 0) -> pd.DataFrame:
        """Draws from the posterior N(coef, cov) of the coefficients, one per row."""
        draws = self._predictors.estimate.coef + self.inference.V.sample(n, seed=seed)
        return pd.DataFrame(draws, columns=self._predictors.coef_index)

    def _summed(self, values: Vector, name: str) -> pd.Series:
        """Sums of the coefficients' values (n_coef,) over each term."""
        rows = {
            (unit.parameter, label): float(values[places].sum())
            for unit in self._predictors.units
            for label, places in unit.places.items()
        }
        return _by_term(rows, name)

    @cached_property
    def _predictors(self) -> Predictors:
        effects_ = () if self.deep is None else self.deep.effects
        estimate = Estimate(self.solution.coef, self.inference.V, self.solution.lam)
        return Predictors.of(self.family, self.designs, estimate, effects_, self.noise)

    @cached_property
    def _uncertainty(self) -> SmoothingUncertainty:
        if self.deep is not None:
            raise FitError(
                "the uncertainty of smoothing parameters is not known for a model with networks: "
                "those of its multipliers were chosen on rows that each network had not seen"
            )
        if self.protection is not None:
            raise FitError(
                "the uncertainty of smoothing parameters is not known for a model with protected "
                "covariates: it has those of the fit without protection"
            )
        if self.solution.selected is not None:
            raise FitError(
                "the uncertainty of smoothing parameters is not known for a model with sparse "
                "terms: all it says is given the selection"
            )
        if self.stored is not None:
            return SmoothingUncertainty.of(self.stored.objective, self.solution)
        frame, response = self._every_row()
        objective, _ = assemble(self.family, response, self.designs, frame)
        return SmoothingUncertainty.of(objective, self.solution)

    @cached_property
    def _corrected(self) -> CorrectedInference:
        return CorrectedInference.of(self._uncertainty, self.solution, self.inference)

    @cached_property
    def _compared(self) -> Compared:
        if self.stored is None:
            (_, response), eta = self._every_row(), self._training_eta
        else:
            response, eta = self.stored.objective.response, self.stored.eta
        modelled = sum(bool(unit.index) for unit in self._predictors.units)
        modelled -= len(self.solution.held)
        inference = self.inference
        return Compared(
            label=", ".join(f"{name}: {text}" for name, text in self.formula.items()),
            family=self.family,
            response=response,
            eta=eta,
            loglik=self.loglik,
            df=float((inference.edf1 + self._corrected.edf - inference.edf).sum()),
            scale=self._fit.scale,
            generalized_linear=self.family.exponential and modelled == 1 and response.plain,
            criterion=self.solution.criterion,
        )

    @cached_property
    def _fit(self) -> Fit:
        return Fit(self._predictors, self.solution, self.inference)

    @cached_property
    def _profile(self) -> Profile:
        return self.profile or Profile.of(self._predictors, *self._training())

    @cached_property
    def _goodness(self) -> Goodness:
        if self.goodness is not None:
            return self.goodness
        frame, response = self._training()
        if self.stored is None:
            return Goodness.of(self._fit, frame, response, self._training_eta)
        every, eta = self.stored.objective.response, self.stored.eta
        return Goodness.of(self._fit, frame, every, eta, self.stored.offset)

    @cached_property
    def _training_eta(self) -> Matrix:
        frame, _ = self._training()
        return self._predictors.eta(frame)

    def _training(self) -> tuple[Frame, Response]:
        if self.frame is None or self.response is None:
            raise PredictionError(
                "the model was saved without its training rows (save(..., data=False)), which this "
                "needs; for predictions give newdata."
            )
        return self.frame, self.response

    def _every_row(self) -> tuple[Frame, Response]:
        """The training rows, of a model that holds all of them."""
        frame, response = self._training()
        if self.nobs > response.n_obs:
            raise PredictionError(
                f"the model was fitted to {self.nobs} rows of a table on disk and holds "
                f"{response.n_obs} of them, while this is about all; for predictions give newdata."
            )
        return frame, response


def anova(model: Estimates, *others: Estimates, test: str | None = "auto") -> pd.DataFrame:
    """Tests of the terms of one model, or a comparison of several of the same data.

    As `model.anova(*others, test=test)`.

    Examples
    --------
    >>> import deepregress as dr
    >>> engel = dr.datasets.load("engel")
    >>> line, curve = dr.fit("foodexp ~ income", engel), dr.fit("foodexp ~ s(income)", engel)
    >>> table = dr.anova(line, curve)
    >>> bool(table["p_value"].iloc[1] < 1e-8)
    True
    """
    return model.anova(*others, test=test)


def _by_term(rows: Mapping[tuple[str, str], float], name: str) -> pd.Series:
    index = pd.MultiIndex.from_tuples(list(rows), names=["parameter", "term"])
    return pd.Series(list(rows.values()), index=index, name=name, dtype=np.float64)
