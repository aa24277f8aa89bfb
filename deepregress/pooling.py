"""Pooling of token vectors: a text of any length as one vector.

    average     v = sum_t m_t e_t / max(1, sum_t m_t),      m_t = 1 where token t is no padding
    attention   v = sum_t a_t e_t,  a = softmax over the tokens that are no padding of e_t' s

e_t (dimension,) are the vectors of the tokens, s is learned. A text without tokens has the average
zero; Keras's masked pooling makes it NaN.

References: Joulin et al. (2017), arXiv 1607.01759 (averages); Yang et al. (2016),
doi:10.18653/v1/N16-1174 (attention).
"""

from __future__ import annotations

from typing import Any

import keras

Tensor = Any

OUT_OF_SIGHT = -1e9
"""Added to the score of padding: its weight in the softmax is zero in float32."""


@keras.saving.register_keras_serializable(package="deepregress")
class MaskedAverage(keras.layers.Layer):  # type: ignore[misc]
    """Mean over the tokens that are no padding."""

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Pool vectors (n, length, dimension) of tokens (n, length) to (n, dimension)."""
        vectors, tokens = inputs
        weight = _no_padding(tokens, vectors.dtype)
        total = keras.ops.sum(vectors * weight, axis=1)
        return total / keras.ops.maximum(keras.ops.sum(weight, axis=1), 1.0)


@keras.saving.register_keras_serializable(package="deepregress")
class MaskedAttention(keras.layers.Layer):  # type: ignore[misc]
    """Mean over the tokens that are no padding, weighted by a learned score."""

    def build(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Make s (dimension, 1)."""
        self.score = self.add_weight(shape=(shapes[0][-1], 1), name="score")

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Pool vectors (n, length, dimension) of tokens (n, length) to (n, dimension)."""
        vectors, tokens = inputs
        weight = _no_padding(tokens, vectors.dtype)
        scores = keras.ops.matmul(vectors, self.score) + (1.0 - weight) * OUT_OF_SIGHT
        attention = keras.ops.softmax(scores, axis=1) * weight
        return keras.ops.sum(vectors * attention, axis=1)


POOLINGS: dict[str, Any] = {"average": MaskedAverage, "attention": MaskedAttention}


def _no_padding(tokens: Tensor, dtype: Any) -> Tensor:
    """One where a token is no padding, (n, length, 1)."""
    return keras.ops.expand_dims(keras.ops.cast(keras.ops.not_equal(tokens, 0), dtype), -1)
