"""Rows that train networks and rows that judge them."""

import numpy as np
import pytest

import deepregress as dr
from deepregress import Training, solvers
from deepregress.disk.scratch import temporary_array
from deepregress.errors import DataError, FitError, UnknownVariable
from deepregress.solvers.folds import folds_of

FAST = {"epochs": 30, "patience": 10, "folds": 4}


def divided(n: int, training: Training, *, crossfit: bool = True):
    folds = folds_of(np.ones(n), training, crossfit=crossfit, seed=3)
    for train, held in zip(folds.train, folds.held, strict=True):
        np.testing.assert_array_equal(np.sort([*train, *held]), np.arange(n))
    return folds


def test_folds_of_a_table_consist_of_runs_of_neighbours():
    folds = divided(1000, Training())
    np.testing.assert_array_equal(np.sort(np.concatenate(folds.held)), np.arange(1000))
    for held in folds.held:
        assert len(held) == 200
        assert np.sum(np.diff(np.sort(held)) > 1) < 20
        assert np.any(np.diff(held) != 1)


@pytest.mark.parametrize("n", [10, 11, 17, 49, 51, 103])
def test_folds_of_few_rows_have_almost_equal_sizes(n):
    sizes = [len(held) for held in divided(n, Training()).held]
    assert sum(sizes) == n
    assert max(sizes) - min(sizes) <= 2


def test_one_share_is_held_out_in_whole_runs():
    (held,) = divided(1000, Training(validation=0.2), crossfit=False).held
    assert len(held) == 200
    assert np.sum(np.diff(np.sort(held)) > 1) < 20


@pytest.mark.parametrize("crossfit", [True, False])
def test_groups_are_never_divided(crossfit):
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 40, 600)
    for held in divided(600, Training(groups=groups), crossfit=crossfit).held:
        assert not set(groups[held]) & set(np.delete(groups, held))
        assert len(held) == pytest.approx(120 if crossfit else 90, abs=40)


@pytest.mark.parametrize("crossfit", [True, False])
def test_groups_of_a_long_table_on_disk_are_in_one_fold_in_all_windows(crossfit, monkeypatch):
    monkeypatch.setattr(solvers.folds, "WINDOW_ROWS", 200)
    monkeypatch.setattr(solvers.folds, "CHUNK_ROWS", 20)
    weights = temporary_array((1000,))
    weights[:] = 1.0
    # every second group is rare: most windows have no row of it
    groups = np.random.default_rng(1).choice(40, 1000, p=np.tile([0.045, 0.005], 20))
    folds = folds_of(weights, Training(groups=groups), crossfit=crossfit, seed=3)
    for train, held in zip(folds.train, folds.held, strict=True):
        np.testing.assert_array_equal(np.sort([*train, *held]), np.arange(1000))
        assert not set(groups[held]) & set(groups[train])


def test_too_few_groups_are_refused():
    with pytest.raises(FitError, match="3 groups, of which the largest has 80 of 100 rows"):
        divided(100, Training(groups=np.repeat([0, 1, 2], [80, 10, 10])))


def _patients() -> dict[str, np.ndarray]:
    """24 rows for each of 15 patients, whom a network can know by marks that say nothing of y."""
    rng = np.random.default_rng(4)
    patient = np.repeat(np.arange(15), 24)
    mark = rng.normal(size=(15, 2))[patient]
    y = rng.normal(size=15)[patient] + 0.3 * rng.normal(size=360)
    order = rng.permutation(360)
    data = {"y": y, "a": mark[:, 0], "b": mark[:, 1], "patient": np.char.mod("p%d", patient)}
    return {name: values[order] for name, values in data.items()}


def test_a_network_that_knows_patients_stays_only_where_rows_are_judged_one_by_one():
    data = _patients()
    training = Training(**FAST)
    rows = dr.fit("y ~ deep(a, b)", data, training=training, seed=1, verbose=0)
    training = Training(groups="patient", **FAST)
    patients = dr.fit("y ~ deep(a, b)", data, training=training, seed=1, verbose=0)
    assert rows.deep.score_difference > 3 * rows.deep.score_se
    assert patients.deep.score_difference <= patients.deep.score_se


def test_groups_by_column_by_values_and_on_disk_are_the_same(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = _patients()
    parquet.write_table(pa.table(data), tmp_path / "rows.parquet")
    found = [
        dr.fit("y ~ deep(a, b)", table, training=Training(groups=groups, **FAST), seed=1, verbose=0)
        for table, groups in (
            (data, "patient"),
            (data, data["patient"]),
            (tmp_path / "rows.parquet", "patient"),
        )
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.deep.score_difference, found[0].deep.score_difference)


def test_groups_that_are_unknown_or_of_another_length_are_refused():
    data = _patients()
    with pytest.raises(UnknownVariable, match="pateint"):
        dr.fit("y ~ deep(a, b)", data, training=Training(groups="pateint"))
    with pytest.raises(DataError, match="groups: shape"):
        dr.fit("y ~ deep(a, b)", data, training=Training(groups=np.arange(10)))
