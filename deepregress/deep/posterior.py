"""What the training rows say about the uncertainty of networks (METHODS 10).

One pass over the rows, in chunks, sums what all kinds of noise need. For a deep effect of the
predictor eta with structured columns Z (n_obs, m), working weights W, o (n_obs, r) what its
directions are made of (module `network_noise`) and g = dl / deta:

    Z'WZ, Z'Wo, o'Wo, Z'g, o'g      A = (X'WX)^-1 X'Wo, X the protected ones of the columns Z

Last-layer Laplace: psi = c (U_m - X A) are the derivatives of eta in the head gamma_m. Given the
features the model is linear in (beta, gamma), and its generalised Gauss-Newton Hessian exact:

    H = psi'W psi - psi'WZ P^-1 Z'W psi,  P = Z'WZ + S        beta integrated
    gamma | y ~ N(gamma, (H + tau I)^-1)

tau maximises the evidence of the same quadratic form, b = psi'g + H gamma,

    log p(y | tau) = 1/2 b'(H + tau I)^-1 b + q/2 log tau - 1/2 log|H + tau I| + const

References: MacKay (1992), doi:10.1162/neco.1992.4.3.415; Daxberger et al. (2021),
arXiv:2106.14806; Dorigatti et al. (2023), AISTATS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize

from deepregress.data import Frame, Response
from deepregress.deep.features import has_dropout
from deepregress.deep.noise import KINDS, Directions, Masks, NetworkNoise, outputs
from deepregress.disk.arrow import Arrow, Inverse
from deepregress.errors import PredictionError, suggestion
from deepregress.families.base import Family, upper_pairs
from deepregress.inference.covariance import Inference
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Predictor, Predictors, chunks
from deepregress.predictor import DeepEffect

PRECISIONS = (1e-10, 1e6)
"""Range of tau, relative to the largest eigenvalue of H."""
DEPENDENT = 1e-10
"""Share of the largest eigenvalue of X'WX, or of H, below which directions count as dependent."""


def network_noise(
    kind: str,
    predictors: Predictors,
    frame: Frame,
    response: Response,
    *,
    penalty: Arrow,
    masks: Masks,
) -> NetworkNoise:
    """Directions of all networks with an effect, and how the coefficients answer.

    Parameters
    ----------
    kind : {"members", "dropout", "laplace"}
    predictors : Predictors
        Given the networks.
    frame, response : Frame, Response
        Training rows.
    penalty : Arrow
        S, of all coefficients.
    masks : Masks

    Raises
    ------
    PredictionError
        The networks have not what the kind is about, or a factor has so many levels that the
        covariance of the coefficients is no matrix.
    """
    V = predictors.conditional
    if not V.layout.entire:
        raise PredictionError(
            f"with_uncertainty({kind!r}) is not available for a model with a factor of this many "
            "levels"
        )
    found: dict[tuple[str, str], Directions] = {}
    answers: list[tuple[Array, Array, Matrix]] = []
    start = 0
    for unit in predictors.units:
        for block in unit.networks(frozenset()):
            effect = unit.effects[block.label]
            _check(kind, effect, masks)
            sums = Sums.of(kind, predictors, unit, effect, frame, response, masks)
            A = effect.projection if kind == "members" else sums.projection(effect.protected)
            own = np.arange(unit.columns.start, unit.columns.stop)
            P = sums.ZZ + penalty.block(own, own)
            inverse: Matrix = np.asarray(np.linalg.pinv(P, hermitian=True), dtype=np.float64)
            mixing = effect.multiplier * _mixing(kind, effect, sums, A, inverse, masks)
            columns = np.arange(mixing.shape[1]) + (0 if kind == "members" else start)
            start += mixing.shape[1]
            found[unit.parameter, block.label] = Directions(columns, A, mixing)
            answer = inverse @ sums.cross(effect.protected, A) @ mixing
            answers.append((own, columns, answer))
    n_directions = max((int(columns.max()) + 1 for _, columns, _ in answers), default=0)
    total = np.zeros((len(V.V), n_directions))
    for places, columns, answer in answers:
        total[np.ix_(places, columns)] += answer
    return NetworkNoise(kind, masks, found, total, V)


def with_noise(
    kind: str,
    predictors: Predictors,
    inference: Inference,
    rows: tuple[Frame, Response],
    *,
    population: Matrix | None,
    masks: Masks,
) -> tuple[Inference, NetworkNoise | None]:
    """Covariances with the uncertainty of the networks of one kind.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    predictors, inference : Predictors, Inference
        Given the networks.
    rows : tuple
        Training rows.
    population : Matrix or None
        V_C.
    masks : Masks

    Raises
    ------
    PredictionError
        The kind is unknown or not available.
    """
    if kind not in KINDS:
        raise PredictionError(
            f"with_uncertainty({kind!r}): needs one of {', '.join(KINDS)}{suggestion(kind, KINDS)}"
        )
    if kind == "conditional":
        return inference, None
    if not any(unit.effects for unit in predictors.units):
        raise PredictionError(f"with_uncertainty({kind!r}): the model has no networks")
    if kind == "population":
        if population is None:
            raise PredictionError(
                "with_uncertainty('population') is not available for a model with a factor of this "
                "many levels"
            )
        values, vectors = np.linalg.eigh(population)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return _added(inference, NetworkNoise(kind, masks, {}, root, inference.V))
    return _added(
        inference, network_noise(kind, predictors, *rows, penalty=inference.penalty, masks=masks)
    )


def _added(inference: Inference, noise: NetworkNoise) -> tuple[Inference, NetworkNoise]:
    """V + R R' in the place of V."""
    total = inference.V.matrix() + noise.response @ noise.response.T
    return replace(inference, V=Inverse.dense(total)), noise


def _check(kind: str, effect: DeepEffect, masks: Masks) -> None:
    """Refuse kinds that a network has no uncertainty of."""
    n_members = len(effect.members.trainable)
    if kind == "members" and n_members < 2:
        raise PredictionError(
            f"{effect.label}: there is one network, no members to compare; "
            "Training(crossfit=True) trains several, dr.ensemble fits the model several times"
        )
    if kind == "dropout" and not has_dropout(effect.architecture):
        raise PredictionError(
            f"{effect.label}: the network has no Dropout layer; dr.networks.mlp(dropout=0.1) has"
        )
    if kind == "dropout" and masks.samples < 2 * n_members:
        raise PredictionError(
            f"samples={masks.samples}: needs two for each of {n_members} members at least"
        )


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the training rows for one deep effect; `oo` are the blocks of o'Wo by member."""

    ZZ: Matrix
    Zo: Matrix
    oo: Sequence[Matrix]
    Zg: Vector
    og: Vector

    @classmethod
    def of(
        cls,
        kind: str,
        predictors: Predictors,
        unit: Predictor,
        effect: DeepEffect,
        frame: Frame,
        response: Response,
        masks: Masks,
    ) -> Sums:
        """Add up chunks of rows."""
        u, block = effect.unit, next(b for b in unit.design.networks if b.label == effect.label)
        n_members = len(effect.members.trainable) if kind == "laplace" else 0
        total: Sums | None = None
        for rows, part in chunks(frame):
            eta = predictors.eta(part)
            g, w = _row_derivatives(predictors.family, response, rows, eta, u)
            Z = unit.matrix(part, frozenset()).toarray()
            o = outputs(kind, effect, block.evaluate(part), masks)
            Zw = Z * w[:, None]
            each = np.split(o, n_members, axis=1) if n_members else []
            own = cls(Zw.T @ Z, Zw.T @ o, [m.T @ (w[:, None] * m) for m in each], Z.T @ g, o.T @ g)
            total = own if total is None else total.plus(own)
        if total is None:
            raise PredictionError("there are no training rows")
        return total

    def plus(self, other: Sums) -> Sums:
        """The sums over both."""
        oo = [a + b for a, b in zip(self.oo, other.oo, strict=True)]
        return Sums(
            self.ZZ + other.ZZ,
            self.Zo + other.Zo,
            oo,
            self.Zg + other.Zg,
            self.og + other.og,
        )

    def projection(self, protected: Array) -> Matrix:
        """A = (X'WX)^-1 X'Wo, (p, r)."""
        XX = self.ZZ[np.ix_(protected, protected)]
        inverse = np.linalg.pinv(XX, rcond=DEPENDENT, hermitian=True)
        return np.asarray(inverse @ self.Zo[protected])

    def cross(self, protected: Array, A: Matrix) -> Matrix:
        """Z'W (o - X A), (m, r)."""
        return np.asarray(self.Zo - self.ZZ[:, protected] @ A)


def _row_derivatives(
    family: Family, response: Response, rows: slice, eta: Matrix, u: int
) -> tuple[Vector, Vector]:
    """g and W of the predictor u, weighted; (n_obs,) each."""
    columns = {name: column[rows] for name, column in response.rows().items()}
    _, gradient, packed = family.row_derivatives(columns, eta)
    weights = response.weights[rows]
    place = list(upper_pairs(eta.shape[1])).index((u, u))
    return weights * gradient[:, u], weights * np.maximum(packed[:, place], 0.0)


def _mixing(
    kind: str, effect: DeepEffect, sums: Sums, A: Matrix, V: Matrix, masks: Masks
) -> Matrix:
    """T / sqrt(K), or that of the delete-a-group jackknife for members."""
    K = len(effect.members.trainable)
    if kind == "members":
        return np.asarray((np.eye(K) - 1.0 / K) * np.sqrt((K - 1) / K))
    if kind == "dropout":
        T = np.zeros((masks.samples, masks.samples))
        for m in range(K):
            own = masks.of_member(m, K)
            n = len(own)
            T[np.ix_(own, own)] = (np.eye(n) - 1.0 / n) / np.sqrt((n - 1) * K)
        return T
    q = len(A.T) // K
    T = np.zeros((K * q, K * q))
    for m in range(K):
        part = slice(m * q, (m + 1) * q)
        H, b = head_hessian(effect, sums, A, V, m)
        T[part, part] = posterior_root(H, b) / np.sqrt(K)
    return T


def head_hessian(
    effect: DeepEffect, sums: Sums, A: Matrix, V: Matrix, m: int
) -> tuple[Matrix, Vector]:
    """H of the head of member m with beta integrated out, and b = psi'g + H gamma."""
    q, c = len(A.T) // len(effect.members.trainable), effect.multiplier
    own, protected = slice(m * q, (m + 1) * q), effect.protected
    XX, Xo, Am = sums.ZZ[np.ix_(protected, protected)], sums.Zo[protected, own], A[:, own]
    psi_psi = c**2 * (sums.oo[m] - Am.T @ Xo - Xo.T @ Am + Am.T @ XX @ Am)
    cross = c * sums.cross(protected, A)[:, own]
    H = psi_psi - cross.T @ V @ cross
    gamma = effect.members.trainable[m, -q:].astype(np.float64)
    slope = c * (sums.og[own] - Am.T @ sums.Zg[protected])
    return 0.5 * (H + H.T), slope + H @ gamma


def posterior_root(H: Matrix, b: Vector) -> Matrix:
    """T with T T' = (H + tau I)^-1, tau of the largest evidence."""
    values, vectors = np.linalg.eigh(H)
    informed = values > DEPENDENT * values.max()
    # what the structured part says as well has no information of its own
    values = np.where(informed, values, 0.0)
    tau = prior_precision(values, np.where(informed, vectors.T @ b, 0.0))
    return np.asarray(vectors / np.sqrt(values + tau))


def prior_precision(values: Vector, b: Vector) -> float:
    """tau that maximises the evidence, from the eigenvalues of H and b in its eigenvectors."""
    largest = float(values.max()) or 1.0

    def loss(log_tau: float) -> float:
        tau = np.exp(log_tau)
        fit = b**2 / (values + tau) + log_tau - np.log(values + tau)
        return -0.5 * float(fit.sum())

    low, high = (float(np.log(largest * share)) for share in PRECISIONS)
    grid = np.linspace(low, high, 75)
    best = int(np.argmin([loss(x) for x in grid]))
    near = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(loss, bounds=near, method="bounded")
    return float(np.exp(found.x))
