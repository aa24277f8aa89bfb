"""Raw text as whole numbers: a vocabulary learned from the training rows, in NumPy.

    words    lower case, punctuation deleted, split at white space
    tokens   0 padding, 1 any other word, 2, 3, ... the most frequent words, ties in reverse
             alphabetical order

as `keras.layers.TextVectorization` does by default, but without TensorFlow and with capital letters
of all alphabets (there: of ASCII) made small. A text is cut after `length` tokens.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deepregress.linalg import Array

PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2
"""Tokens that are no words, and the token of the most frequent word."""

LENGTH_SHARE, LONGEST = 0.95, 256
"""The default length is that of all but 5 % of the training texts, at most 256 tokens."""

_DELETED = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Vocabulary:
    """The words that have a token of their own.

    Parameters
    ----------
    words : tuple of str
        The most frequent one first.

    Examples
    --------
    >>> vocabulary = Vocabulary.learn(["To be, or not to be", "to see"], [1, 1])
    >>> vocabulary.words[:2]
    ('to', 'be')
    >>> vocabulary.encode(["To be heard."], 4)
    array([[2, 3, 1, 0]], dtype=int32)
    """

    words: tuple[str, ...]

    @classmethod
    def learn(
        cls, texts: Sequence[str], counts: Sequence[int], *, max_tokens: int | None = None
    ) -> Vocabulary:
        """The most frequent words of distinct texts.

        Parameters
        ----------
        texts : sequence of str
        counts : sequence of int
            How often each text occurs.
        max_tokens : int, optional
            At most so many tokens, padding and unknown words among them; all by default.
        """
        total: Counter[str] = Counter()
        for words, count in zip(split(texts), counts, strict=True):
            for word in words:
                total[word] += count
        ordered = sorted(total.items(), key=lambda item: (item[1], item[0]), reverse=True)
        most = None if max_tokens is None else max_tokens - FIRST_WORD
        return cls(tuple(word for word, _ in ordered[:most]))

    @property
    def n_tokens(self) -> int:
        """Number of tokens, padding and unknown words among them."""
        return len(self.words) + FIRST_WORD

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.words, FIRST_WORD)}

    def encode(self, texts: Sequence[str], length: int) -> Array:
        """Tokens of texts, cut or padded to one length, (n, length) int32."""
        cut = [words[:length] for words in split(texts)]
        tokens = np.full((len(cut), length), PADDING, dtype=np.int32)
        filled = np.arange(length) < np.array([len(words) for words in cut])[:, None]
        known = self._tokens
        tokens[filled] = [known.get(word, UNKNOWN) for words in cut for word in words]
        return tokens


def split(texts: Sequence[str]) -> list[list[str]]:
    """Words of each text."""
    return [text.lower().translate(_DELETED).split() for text in texts]


def usual_length(texts: Sequence[str], counts: Sequence[int]) -> int:
    """Words of all but the longest texts, which occur so often; at least 1."""
    lengths = np.repeat([len(words) for words in split(texts)], counts)
    most = int(np.quantile(lengths, LENGTH_SHARE, method="higher"))
    return min(max(most, 1), LONGEST)
