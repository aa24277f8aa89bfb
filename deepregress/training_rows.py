"""The training rows of a table on disk (DESIGN 1: data larger than memory; DESIGN 3, step 2).

The files are read several times from the first row to the last, only the columns that each pass
needs, and memory holds some batches of rows:

    1. which rows can be used (`complete_rows`), types and levels of the columns, and the rows that
       terms learn from (`survey`)
    2. response and weights of all rows, into temporary files (`scratch`)
    3. the columns of the design and the inputs of networks (`assembly`)

Beyond these files a fit holds one byte for each row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from deepregress import survey
from deepregress.data import Wanted
from deepregress.disk.scratch import temporary_array
from deepregress.disk.source import Source, column
from deepregress.errors import DataError, DeepRegressError, PredictionError, ResponseError
from deepregress.frame import Frame
from deepregress.linalg import Array
from deepregress.response import Response
from deepregress.survey import Kind, Survey


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows of a table on disk that can be used.

    Parameters
    ----------
    source : Source
    kinds : dict
        Column -> its type over all rows.
    keep : Array, (n_rows,)
        Which rows of the table can be used.
    n_obs : int
        Their number.
    chosen : Array
        Which of them terms learn from, by their numbers.
    sample : Frame
        The columns of those.
    """

    source: Source
    kinds: Mapping[str, Kind]
    keep: Array
    n_obs: int
    chosen: Array
    sample: Frame

    def frames(self, names: Sequence[str]) -> Iterator[tuple[slice, Frame]]:
        """Some columns of all rows, chunk by chunk, each with its place among the rows.

        Raises
        ------
        DataError
            The files are not those that were read before.
        """
        wanted = list(dict.fromkeys(names)) or list(self.kinds)[:1]
        first = start = 0
        for frame in read(self.source, wanted):
            keep = self.keep[first : first + frame.n_obs]
            if len(keep) < frame.n_obs:
                break
            columns = {n: self.kinds[n].column(values) for n, values in frame.columns.items()}
            part = Frame(columns, frame.n_obs)
            first += frame.n_obs
            if not keep.all():
                part = part.rows(keep)
            rows = slice(start, start + part.n_obs)
            if part.n_obs:
                yield rows, part
            start = rows.stop
        if first != len(self.keep):
            raise DataError("the data on disk changed while they were read.")


def stored_training_set(
    source: Source,
    needs: Mapping[str, Sequence[str]],
    *,
    response: str,
    response_variables: Sequence[str],
    weights: str | Sequence[float] | Array | None = None,
    na: Literal["drop", "raise"] = "drop",
    known: Sequence[str] = (),
    crossings: Sequence[tuple[str, ...]] = (),
    coded: Sequence[str] = (),
) -> tuple[TrainingRows, Response]:
    """Read and clean what the formulas need of a table on disk; as `data.training_set` otherwise.

    Parameters
    ----------
    source : Source
    needs, response, response_variables, weights, na, known
        As for `data.training_set`.
    crossings : sequence of tuple of str
        Columns whose combinations of levels terms must learn from.
    coded : sequence of str
        Columns of numbers that terms take as factors.

    Returns
    -------
    rows : TrainingRows
    response : Response
        Its arrays are in temporary files.

    Raises
    ------
    UnknownVariable, DataError, ResponseError
        See the messages.
    """
    wanted = Wanted.of(
        source.names,
        needs,
        response=response,
        response_variables=response_variables,
        weights=weights,
        na=na,
        known=known,
    )
    rows = _surveyed(source, wanted, na, Survey(crossings, coded, survey.SAMPLE_ROWS))
    if isinstance(wanted.weights, np.ndarray):
        wanted = replace(wanted, weights=wanted.weights[rows.keep])
    return rows, _response(rows, wanted)


def codes_of(groups: str | Array, rows: Frame | TrainingRows) -> Array:
    """The group of each row as a number, (n_obs,).

    Parameters
    ----------
    groups : str or array
        A column, or a value for each row.
    rows : Frame or TrainingRows

    Raises
    ------
    DataError
        There is not one value for each row that is used.
    """
    values = [np.asarray(groups)]
    if isinstance(groups, str):
        frames = [rows] if isinstance(rows, Frame) else [part for _, part in rows.frames([groups])]
        values = [np.asarray(frame[groups]) for frame in frames]
    found = np.concatenate(values) if values[0].ndim else values[0]
    if found.shape != (rows.n_obs,):
        raise DataError(
            f"groups: shape {found.shape}, but the fit uses {rows.n_obs} rows; name a column where "
            "rows with missing values are left out"
        )
    return np.asarray(np.unique(found, return_inverse=True)[1])


def read(source: Source, names: Sequence[str]) -> Iterator[Frame]:
    """Consecutive rows, each chunk in its own types."""
    for batch in source.batches(names):
        columns = {name: column(name, values) for name, values in batch.items()}
        yield Frame(columns, len(next(iter(columns.values()))))


def _surveyed(source: Source, wanted: Wanted, na: str, seen: Survey) -> TrainingRows:
    """The first pass."""
    keep, tally, first = [], None, 0
    weights = wanted.weights
    if isinstance(weights, np.ndarray):
        _check_length(weights, source.n_rows())
    for frame in read(source, wanted.names):
        rows = slice(first, first + frame.n_obs)
        if isinstance(weights, np.ndarray):
            wanted = replace(wanted, weights=weights[rows])
        with located(rows):
            judged = wanted.judged(frame, first)
        tally = judged.tally if tally is None else tally + judged.tally
        keep.append(judged.keep)
        if judged.keep.any():
            seen.add(frame if judged.keep.all() else frame.rows(judged.keep))
        first = rows.stop
    if tally is None:
        raise DataError("the data have no rows.")
    tally.report(na)
    kinds = seen.kinds([name for name in wanted.names if source.is_text(name)])
    chosen, sample = seen.sample(kinds)
    return TrainingRows(source, kinds, np.concatenate(keep), seen.n_obs, chosen, sample)


def _check_length(weights: Array, n_rows: int) -> None:
    if weights.shape != (n_rows,):
        raise DataError(f"weights: shape {weights.shape}, but the data have {n_rows} rows.")


def _response(rows: TrainingRows, wanted: Wanted) -> Response:
    """The second pass."""
    names = [*wanted.response_variables]
    names += [wanted.weights] if isinstance(wanted.weights, str) else []
    whole: Response | None = None
    weights = wanted.weights
    for at, frame in rows.frames(names):
        if isinstance(weights, np.ndarray):
            wanted = replace(wanted, weights=weights[at])
        with located(at):
            part = _of_frame(wanted, frame)
            if whole is None:
                _check_row_wise(wanted, frame, part)
                whole = _blank(part, rows.n_obs)
        for name, values in _arrays(part).items():
            getattr(whole, name)[at] = values
    if whole is None:
        raise DataError("the data on disk changed while they were read.")
    return whole


def _of_frame(wanted: Wanted, frame: Frame) -> Response:
    return wanted.judged(frame).rows(lambda given: given)[1]


def _arrays(response: Response) -> dict[str, Array]:
    """Its columns; `upper` only where it is another array than `lower`."""
    found = {each.name: getattr(response, each.name) for each in fields(response)}
    if response.lower is response.upper:
        del found["upper"]
    return {name: values for name, values in found.items() if isinstance(values, np.ndarray)}


def _blank(part: Response, n_obs: int) -> Response:
    """The response of all rows, to be filled."""
    arrays = {
        name: temporary_array((n_obs, *values.shape[1:]), values.dtype)
        for name, values in _arrays(part).items()
    }
    columns: dict[str, Any] = {"upper": arrays["lower"], **arrays}
    return replace(part, **columns)


def _check_row_wise(wanted: Wanted, frame: Frame, part: Response) -> None:
    """Refuse a response such as `y - mean(y)`, whose value in a row depends on the other rows."""
    first = slice(0, 1)
    if isinstance(wanted.weights, np.ndarray):
        wanted = replace(wanted, weights=wanted.weights[first])
    alone = _of_frame(wanted, frame.rows(first))
    if not np.array_equal(alone.lower, part.lower[first], equal_nan=True):
        raise ResponseError(
            f"response {wanted.response}: its value in a row depends on the other rows, which is "
            "not possible for data on disk, as they are read by the chunk."
        )


@contextlib.contextmanager
def located(rows: slice) -> Iterator[None]:
    """Say of errors in which rows of the data on disk they are."""
    try:
        yield
    except DeepRegressError as error:
        kind = DataError if isinstance(error, PredictionError) else type(error)
        where = f"(in rows {rows.start} to {rows.stop - 1} of the data on disk)"
        raise kind(f"{error} {where}") from error
