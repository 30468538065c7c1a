"""Rows classified right: with leading axes, and at the very edges of the two questions."""

import numpy as np

from bnengine import ops


def test_the_most_probable_class_is_that_of_the_last_axis():
    """Two images of two places and three classes; with the classes on the middle axis there would be no such count."""
    logits = np.asarray([[[9.0, 0, 0], [0, 9, 0]], [[0, 0, 9], [9, 0, 0]]])
    probabilities = np.asarray([[[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], [[0.1, 0.8, 0.1], [0.5, 0.1, 0.4]]])
    assert ops.correct(logits, probabilities).tolist() == [3.0]
    assert ops.correct(logits, np.asarray([[0, 1], [1, 0]])).tolist() == [3.0]


def test_a_target_of_exactly_a_half_says_no_and_so_does_a_logit_of_0():
    logits, half = np.asarray([[-1.0], [0.0], [1.0]]), np.full((3, 1), 0.5)
    assert ops.correct(logits, half).tolist() == [2.0]
