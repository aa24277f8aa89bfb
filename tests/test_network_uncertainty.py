"""Uncertainty of networks: against Bayesian linear regression, Keras and dense formulas."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import deepregress as dr
from deepregress.deep.noise import Masks, outputs
from deepregress.errors import PredictionError

SCALE, N = 0.5, 250
KINDS = ("members", "dropout", "laplace")


def table(n=N, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.uniform(-1, 1, n), rng.normal(size=(n, 2))
    y = 1 + x + np.tanh(2 * z[:, 0] * z[:, 1]) + np.abs(z[:, 1]) + SCALE * rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "z1": z[:, 0], "z2": z[:, 1]})


def network():
    layers = [
        keras.layers.Dense(24, "relu"),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(4, "tanh"),
    ]
    return keras.Sequential([keras.Input((3,)), *layers])


def fitted(formula, *, crossfit, orthogonalize="posthoc", scale=SCALE):
    return dr.fit(
        {"loc": formula, "scale": scale},
        table(),
        networks={"net": network()},
        training=dr.Training(epochs=60, folds=3, crossfit=crossfit),
        orthogonalize=orthogonalize,
        seed=2,
        verbose=0,
    )


@pytest.fixture(scope="module")
def single():
    """One network, which entered as an offset; the scale is known."""
    return fitted("y ~ x + net(x, z1, z2)", crossfit=False)


@pytest.fixture(scope="module")
def crossed():
    return fitted("y ~ x + s(z1) + net(x, z1, z2)", crossfit=True, scale="~ 1")


@pytest.fixture(scope="module")
def free():
    """Networks that are not made orthogonal."""
    return fitted("y ~ x + net(x, z1, z2)", crossfit=True, orthogonalize="none")


def keras_copy(model, member=0):
    """The network of a fit as a Keras model, and its head."""
    effect = model.deep.effects[0]
    copy = effect.architecture.build(0)
    packed, start = effect.members.trainable[member], 0
    for variable in copy.trainable_variables:
        size = int(np.prod(variable.shape))
        variable.assign(packed[start : start + size].reshape(variable.shape))
        start += size
    return copy, packed[start:].astype(float)


def inputs(model, rows):
    """What the network sees of a table: its columns, standardised as in training."""
    frame = dr.data.prediction_frame(rows, ["x", "z1", "z2"])
    (z,) = model.designs["loc"].networks[0].evaluate(frame)
    return z.astype("float32")


# -- last-layer Laplace ----------------------------------------------------------------------------


def test_laplace_is_bayesian_linear_regression_on_the_features(single):
    """Flat prior on (1, x), N(0, 1 / tau) on the head, tau by the exact marginal likelihood."""
    data, new = table(), table(20, seed=7)
    copy, _ = keras_copy(single)
    c = single.deep.effects[0].multiplier

    def design(rows):
        U = copy(inputs(single, rows), training=False).numpy()
        return np.column_stack([np.ones(len(rows)), rows["x"], c * U.astype(float)])

    X, y = design(data), data["y"].to_numpy()

    def precision(tau):
        return X.T @ X / SCALE**2 + np.diag([0, 0, *np.full(4, tau)])

    def restricted(log_tau):
        # -2 log of the normal density of y with (1, x) integrated over a flat prior
        tau = np.exp(log_tau)
        P = precision(tau)
        mean = np.linalg.solve(P, X.T @ y / SCALE**2)
        left = y @ (y - X @ mean) / SCALE**2
        return left + np.linalg.slogdet(P)[1] - 4 * log_tau

    found = scipy.optimize.minimize_scalar(restricted, bounds=(-12, 12), method="bounded")
    cov = np.linalg.inv(precision(np.exp(found.x)))
    at = design(new)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", at, cov, at))
    se = single.with_uncertainty("laplace").predict(new, "linear", parameter="loc", se=True)["se"]
    # tau to the tolerance of two searches of one dimension
    np.testing.assert_allclose(se, expected, rtol=1e-4)


def test_structured_coefficients_are_those_after_projection(single):
    """An orthogonal network moves nothing: cov of (1, x) stays that of the linear model."""
    laplace = single.with_uncertainty("laplace")
    np.testing.assert_allclose(laplace.std_error, single.std_error, rtol=1e-5)


# -- Monte Carlo dropout ---------------------------------------------------------------------------


def test_dropout_has_the_variance_of_keras_in_training_mode(single):
    effect, new = single.deep.effects[0], table(15, seed=8)
    z = inputs(single, new)
    copy, head = keras_copy(single)
    keras.utils.set_random_seed(1)
    direct = np.stack([copy(z, training=True).numpy() @ head for _ in range(1500)])
    ours = outputs("dropout", effect, (z,), Masks(1500, 3)).T
    ratio = ours.var(axis=0) / direct.var(axis=0)
    # the standard error of a ratio of such variances is about 0.05
    assert abs(np.mean(ratio) - 1) < 0.05
    assert np.abs(ratio - 1).max() < 0.25
    spread = np.sqrt(direct.var(axis=0) / 1500)
    assert (np.abs(ours.mean(axis=0) - direct.mean(axis=0)) / spread).max() < 5


def test_dropout_adds_the_variance_of_its_samples(single):
    new = table(10, seed=8)
    model = single.with_uncertainty("dropout", samples=40, seed=4)
    effect, X = single.deep.effects[0], np.column_stack([np.ones(N), table()["x"]])
    z = [inputs(single, rows) for rows in (table(), new)]
    train, at = (outputs("dropout", effect, (part,), Masks(40, 4)) for part in z)
    C = np.linalg.lstsq(X, train, rcond=None)[0]
    x = np.column_stack([np.ones(10), new["x"]])
    noise = np.var(at - x @ C, axis=1, ddof=1)
    before = single.predict(new, "linear", parameter="loc", se=True)["se"] ** 2
    after = model.predict(new, "linear", parameter="loc", se=True)["se"] ** 2
    np.testing.assert_allclose(after - before, noise, rtol=1e-4)


# -- members, and what noise does to structured coefficients ---------------------------------------


def test_network_noise_reaches_the_coefficients(free):
    """V[beta] - V = P Gamma P' with the dense Gamma (n, n) of the members' effects."""
    model = free.with_uncertainty("members")
    data, effect = table(), free.deep.effects[0]
    X = np.column_stack([np.ones(N), data["x"]])
    each = effect.member_effects((inputs(free, data),), X)
    away = each - each.mean(axis=0)
    Gamma = 2 / 3 * away.T @ away  # the jackknife of three groups
    P = np.linalg.solve(X.T @ X, X.T)
    added = model.cov.to_numpy() - free.cov.to_numpy()
    np.testing.assert_allclose(added[:2, :2], P @ Gamma @ P.T, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(added[2], 0.0, atol=1e-12)
    assert (model.std_error > 1.01 * free.std_error).any()
    # a prediction holds both, and how they go together
    Z = np.column_stack([X, each.mean(axis=0) / free.coef.iloc[2]])
    left = np.eye(N) - X @ P
    expected = np.diag(Z @ free.cov.to_numpy() @ Z.T + left @ Gamma @ left.T)
    found = model.predict(which="linear", parameter="loc", se=True)["se"]
    np.testing.assert_allclose(found**2, expected, rtol=1e-6)


def test_orthogonal_members_leave_the_coefficients(crossed):
    model = crossed.with_uncertainty("members")
    structured = [name for name in crossed.coef.index if name[1] != "net(x,z1,z2)"]
    # the weights of the projection are those before the refit of the scale
    np.testing.assert_allclose(
        model.std_error[structured], crossed.std_error[structured], rtol=5e-3
    )
    after = model.predict(table(30, 5), "linear", parameter="loc", se=True)["se"]
    before = crossed.predict(table(30, 5), "linear", parameter="loc", se=True)["se"]
    assert (after > before).all()


def test_population(crossed):
    model = crossed.with_uncertainty("population")
    pd.testing.assert_frame_equal(model.cov, crossed.cov_population, rtol=1e-8, atol=1e-12)
    pd.testing.assert_frame_equal(model.cov_population, crossed.cov_population)
    se = model.partial_effect("s(z1)")["se"]
    assert (se > crossed.partial_effect("s(z1)")["se"]).all()
    place = crossed._predictors.units[0].places["s(z1)"]
    frame = pd.DataFrame({"z1": model.partial_effect("s(z1)")["z1"]})
    X = crossed.designs["loc"].columns[1].evaluate(dr.data.prediction_frame(frame, ["z1"]))
    cov = crossed.cov_population.to_numpy()[np.ix_(place, place)]
    np.testing.assert_allclose(se, np.sqrt(np.einsum("ij,jk,ik->i", X, cov, X)), rtol=1e-8)


# -- for every kind --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_predicted_alone_as_among_others(crossed, kind):
    model = crossed.with_uncertainty(kind, samples=12)
    new = table(40, seed=11)
    together = model.predict(new, "linear", parameter="loc", se=True)["se"]
    alone = [
        model.predict(new.iloc[[i]], "linear", parameter="loc", se=True)["se"].iloc[0]
        for i in range(3)
    ]
    np.testing.assert_allclose(alone, together[:3], rtol=1e-10)
    again = crossed.with_uncertainty(kind, samples=12)
    same = again.predict(new, "linear", parameter="loc", se=True)["se"]
    np.testing.assert_array_equal(same, together)


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_has_errors_has_the_noise(crossed, kind):
    model, new = crossed.with_uncertainty(kind, samples=12), table(25, seed=12)
    np.testing.assert_array_equal(model.predict(new), crossed.predict(new))
    before = crossed.predict(new, se=True, interval=0.9)
    after = model.predict(new, se=True, interval=0.9)
    np.testing.assert_array_equal(after["estimate"], before["estimate"])
    assert (after["se"] > before["se"]).all()
    assert (after["upper"] > before["upper"]).all()
    terms = model.predict(new, "terms", parameter="loc", se=True)
    label = "net(x,z1,z2)"
    deep = model.partial_effect(label, grid=new[["x", "z1", "z2"]])
    np.testing.assert_allclose(terms[label, "se"], deep["se"], rtol=1e-8)
    given = crossed.partial_effect(label, grid=new[["x", "z1", "z2"]])
    assert (deep["se"] > given["se"]).all()
    wide = model.partial_effect(label, grid=new[["x", "z1", "z2"]], simultaneous=True)
    assert (wide["upper"] > deep["upper"]).all()
    without = model.predict(new, "linear", parameter="loc", se=True, exclude=label)
    np.testing.assert_allclose(
        without["se"],
        crossed.predict(new, "linear", parameter="loc", se=True, exclude=label)["se"],
        rtol=5e-3,
    )


def test_another_seed_draws_other_masks(crossed):
    one, two = (crossed.with_uncertainty("dropout", samples=12, seed=s) for s in (1, 2))
    new = table(5, seed=1)
    assert not np.allclose(one.predict(new, se=True)["se"], two.predict(new, se=True)["se"])


def test_it_is_saved_and_taken_back(crossed, tmp_path):
    new = table(5, seed=3)
    for kind in KINDS:
        model = crossed.with_uncertainty(kind, samples=8)
        model.save(tmp_path / "model.zip")
        again = dr.load(tmp_path / "model.zip")
        pd.testing.assert_frame_equal(
            again.predict(new, se=True), model.predict(new, se=True), check_exact=True
        )
        back = model.with_uncertainty()
        pd.testing.assert_frame_equal(back.cov, crossed.cov, check_exact=True)
        assert back.noise is None
    # not added twice
    twice = crossed.with_uncertainty("members").with_uncertainty("members")
    pd.testing.assert_frame_equal(twice.cov, crossed.with_uncertainty("members").cov)


def test_summary_says_which(crossed):
    assert "Standard errors are given the networks" in str(crossed.summary())
    texts = {"members": "jackknife variance", "laplace": "last-layer Laplace"}
    for kind, text in texts.items():
        assert text in str(crossed.with_uncertainty(kind).summary())


def test_ensembles_pool_what_their_members_hold(crossed):
    models = (crossed, crossed)
    given = dr.Ensemble(models).predict(table(5), se=True)["se"]
    noisy = dr.Ensemble(models).with_uncertainty("laplace")
    expected = crossed.with_uncertainty("laplace").predict(table(5), se=True)["se"]
    found = noisy.predict(table(5), se=True)["se"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert (found > given).all()


def test_what_cannot_be_is_refused(crossed, single):
    with pytest.raises(PredictionError, match="'laplas'.*did you mean 'laplace'"):
        crossed.with_uncertainty("laplas")
    with pytest.raises(PredictionError, match="there is one network"):
        single.with_uncertainty("members")
    with pytest.raises(PredictionError, match="needs two for each of 3 members"):
        crossed.with_uncertainty("dropout", samples=5)
    plain = dr.fit(
        "y ~ deep(x, z1, z2)",
        table(),
        training=dr.Training(epochs=3, folds=2),
        seed=1,
        verbose=0,
    )
    with pytest.raises(PredictionError, match="no Dropout layer"):
        plain.with_uncertainty("dropout")
    with pytest.raises(PredictionError, match="has no networks"):
        dr.fit("y ~ x", table()).with_uncertainty("laplace")
