"""Texts as tokens: the same as Keras's TextVectorization."""

import keras
import numpy as np
import pytest

from deepregress.vocabulary import LONGEST, Vocabulary, usual_length

TEXTS = (
    "Bright room, close to the U-Bahn; quiet & clean!",
    "the room is QUIET. The kitchen is shared: it's small",
    "  two   rooms\twith\na balcony (5 m2) and the view ",
    "",
    "to to the the a a b",
    "?!",
)


@pytest.mark.parametrize("max_tokens", [None, 3, 8, 100])
@pytest.mark.parametrize("length", [1, 4, 12])
def test_tokens_are_those_of_keras(max_tokens, length):
    theirs = keras.layers.TextVectorization(max_tokens=max_tokens, output_sequence_length=length)
    theirs.adapt(list(TEXTS))
    ours = Vocabulary.learn(TEXTS, [1] * len(TEXTS), max_tokens=max_tokens)
    assert ["", "[UNK]", *ours.words] == theirs.get_vocabulary()
    assert ours.n_tokens == theirs.vocabulary_size()
    new = [*TEXTS, "an unheard of room", "THE"]
    tokens = ours.encode(new, length)
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, theirs(np.array(new)).numpy())


def test_texts_count_as_often_as_they_occur():
    once = Vocabulary.learn(["a b b", "c"], [1, 1])
    often = Vocabulary.learn(["a b b", "c"], [1, 5])
    assert once.words[0] == "b"
    assert often.words[0] == "c"


def test_capital_letters_of_all_alphabets_become_small():
    assert Vocabulary.learn(["Über ÜBER über"], [1]).words == ("über",)


def test_the_usual_length_leaves_out_the_longest_texts():
    texts = ["word " * n for n in (3, 10, 1000)]
    assert usual_length(texts, [50, 48, 2]) == 10
    assert usual_length(texts, [1, 1, 1]) == LONGEST
    assert usual_length(["?"], [4]) == 1
