"""Compiled row-wise derivatives of a log-likelihood, for chunks of rows.

Everything a solver needs of l_i(eta_i), a function of the U predictors of one row, follows by
automatic differentiation:

    g_i = dl_i / deta_i          (U,)
    W_i = -d2 l_i / deta_i2      (U, U), packed as its upper triangle
    v_i = d <W_i, A_i> / deta_i  (U,)     the third derivatives, contracted with a weight A_i

They are compiled once per family and kind of response, by XLA for long data; that compilation
serves every fit of the process, whatever its number of rows. Rows are independent, so the gradient
of a sum over rows is row-wise.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.linalg import Array, Matrix

SHORT, CHUNK = 1024, 8192
"""Rows up to which data are short, and rows of a chunk of all others. XLA takes seconds to compile,
keeps tens of MiB for as long as the process lives, and gains at most a third of a fit of short
data: it is for chunks. What is compiled without it takes any number of rows."""

WIDE = 5
"""Number of predictors from which on XLA is slow to compile and, as it computes shared values again
and again, to run: plain TensorFlow then takes all rows of the Hessians in one batch."""


class Likelihood(Protocol):
    """Anything with a row-wise log-likelihood."""

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        """l_i(eta_i), (n_obs,), at predictors (n_obs, U)."""

    def __hash__(self) -> int:
        """A hash, by which kernels are kept."""


def upper_pairs(n_units: int) -> tuple[tuple[int, int], ...]:
    """The (k, l) with k <= l, the order of a packed symmetric U x U matrix."""
    return tuple((k, m) for k in range(n_units) for m in range(k, n_units))


def derivatives(
    family: Likelihood, rows: Mapping[str, Tensor], eta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel of l (n,), g (n, U) and packed W (n, U (U + 1) / 2)."""
    if eta.shape[1] >= WIDE:
        return _wide_derivatives(family, rows, eta)
    rowwise, gradient, hessian = _row_derivatives(family, rows, tf.unstack(eta, axis=1))
    return rowwise, tf.stack(gradient, axis=1), tf.stack(hessian, axis=1)


def third(
    family: Likelihood, rows: Mapping[str, Tensor], eta: Tensor, weight: Tensor
) -> tuple[Tensor]:
    """The kernel of v (n, U) at weights (n, U (U + 1) / 2)."""
    if eta.shape[1] >= WIDE:
        with tf.GradientTape() as tape:
            tape.watch(eta)
            total = tf.reduce_sum(weight * _wide_derivatives(family, rows, eta)[2])
        return (tape.gradient(total, eta, unconnected_gradients="zero"),)
    parts = tf.unstack(eta, axis=1)
    with tf.GradientTape() as tape:
        tape.watch(parts)
        _, _, hessian = _row_derivatives(family, rows, parts)
        total = tf.reduce_sum(weight * tf.stack(hessian, axis=1))
    return (tf.stack(tape.gradient(total, parts, unconnected_gradients="zero"), axis=1),)


def value(family: Likelihood, rows: Mapping[str, Tensor], eta: Tensor) -> tuple[Tensor]:
    """The kernel of l (n,) alone."""
    return (family.log_likelihood(rows, eta),)


def in_chunks(
    kernel: Callable[..., Any],
    family: Likelihood,
    rows: Mapping[str, Array],
    leading: tuple[Matrix, ...],
) -> tuple[Any, ...]:
    """Run a compiled row-wise kernel: over short data at once, else over chunks of fixed size.

    The last chunk is filled with row 0.

    Parameters
    ----------
    kernel : callable
        `derivatives`, `third` or `value`.
    family : Likelihood
    rows : mapping of str to array, each (n_obs, ...)
        `Response.rows()`.
    leading : tuple of arrays, each (n_obs, ...)
        The other arguments of the kernel, predictors first.
    """
    n = len(leading[0])
    size = None if n <= SHORT else CHUNK
    columns = (*leading, *rows.values())
    shapes = tuple((size, *column.shape[1:]) for column in columns)
    with _compiling:
        compiled = _compiled(kernel, family, tuple(rows), shapes)
    if size is None:
        return tuple(out.numpy() for out in compiled(*(tf.constant(c) for c in columns)))
    pieces = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        chunk = [column[start:stop] for column in columns]
        if stop - start < size:
            chunk = [
                np.concatenate([c, np.broadcast_to(column[:1], (size - len(c), *c.shape[1:]))])
                for c, column in zip(chunk, columns, strict=True)
            ]
        outputs = compiled(*(tf.constant(c) for c in chunk))
        pieces.append([out.numpy()[: stop - start] for out in outputs])
    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))


def _row_derivatives(
    family: Likelihood, rows: Mapping[str, Tensor], eta: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(eta)
        with tf.GradientTape() as inner:
            inner.watch(eta)
            rowwise = family.log_likelihood(rows, tf.stack(eta, axis=1))
            total = tf.reduce_sum(rowwise)
        gradient = inner.gradient(total, eta, unconnected_gradients="zero")
    hessian = []
    for k in range(len(eta)):
        column = outer.gradient(gradient[k], eta[k:], unconnected_gradients="zero")
        hessian += [-entry for entry in column]
    return rowwise, gradient, hessian


def _wide_derivatives(
    family: Likelihood, rows: Mapping[str, Tensor], eta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of all Hessians at once, as one batch of backward passes."""
    with tf.GradientTape() as outer:
        outer.watch(eta)
        with tf.GradientTape() as inner:
            inner.watch(eta)
            rowwise = family.log_likelihood(rows, eta)
            total = tf.reduce_sum(rowwise)
        gradient = inner.gradient(total, eta, unconnected_gradients="zero")
        sums = tf.reduce_sum(gradient, axis=0)
    hessian = outer.jacobian(sums, eta, unconnected_gradients="zero")
    W = [-hessian[k, :, m] for k, m in upper_pairs(eta.shape[1])]
    return rowwise, gradient, tf.stack(W, axis=1)


KERNELS = 64
"""Compiled kernels that are kept: some MiB each, several for a family."""
_compiling = threading.Lock()
"""Two threads that ask for a new kernel at once would both compile it."""


@functools.lru_cache(maxsize=KERNELS)
def _compiled(
    kernel: Callable[..., Any],
    family: Likelihood,
    names: tuple[str, ...],
    shapes: tuple[tuple[int | None, ...], ...],
) -> Callable[..., Any]:
    """The compiled kernel of a family for float64 arguments of these shapes.

    `names` are those of the response's columns, which follow the other arguments; None is any
    number of rows.
    """

    def of_columns(*arguments: Tensor) -> Any:
        leading = len(arguments) - len(names)
        rows = dict(zip(names, arguments[leading:], strict=True))
        return kernel(family, rows, *arguments[:leading])

    specs = [tf.TensorSpec(shape, tf.float64) for shape in shapes]
    rows, n_units = shapes[0]
    jit = rows is not None and n_units is not None and n_units < WIDE
    compiled = tf.function(of_columns, jit_compile=jit, autograph=False)
    # the concrete function skips the dispatch of tf.function, half the cost of a small chunk
    return compiled.get_concrete_function(*specs)  # type: ignore[no-any-return]
