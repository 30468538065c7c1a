"""Accuracy, top-k and the confusion matrix: hand-worked figures, ties, non-finite outputs, batches in any cut."""

import io

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.metrics import Accuracy, ConfusionMatrix, TopK

# Largest outputs: 1, 0, 2, 0 (a tie with 2). True classes: 1, 2, 2, 0.
OUTPUTS = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.0, 0.1, 0.9], [0.4, 0.2, 0.4]], np.float32)
TARGETS = np.array([1, 2, 2, 0])


def filled(metric, *batch):
    metric.update(*batch)
    return metric


def test_accuracy_counts_rows_by_their_weight_whose_largest_output_is_right():
    weights = np.array([1.0, 2.0, 0.5, 0.5])
    for metric in (Accuracy, lambda: ConfusionMatrix(3)):
        assert filled(metric(), OUTPUTS, TARGETS).value() == 0.75
        assert filled(metric(), OUTPUTS, TARGETS, weights).value() == 0.5
        assert filled(filled(metric(), OUTPUTS, TARGETS), OUTPUTS, TARGETS, weights).value() == 5 / 8


def test_of_equal_outputs_the_first_is_the_answer():
    tie = np.ones((1, 3))
    assert [filled(Accuracy(), tie, [c]).value() for c in range(3)] == [1, 0, 0]
    assert [filled(TopK(2), tie, [c]).value() for c in range(3)] == [1, 1, 0]


def test_targets_may_be_probabilities_one_logit_or_sequences():
    assert filled(Accuracy(), OUTPUTS, np.eye(3)[TARGETS]).value() == 0.75
    assert filled(Accuracy(), OUTPUTS.reshape(2, 2, 3), TARGETS.reshape(2, 2)).value() == 0.75
    logits, yes = np.array([2.0, -1.0, 0.0, 3.0]), np.array([1, 1, 0, 1])
    for outputs in (logits, logits[:, None]):
        for targets in (yes, yes[:, None], yes.astype(np.float32), yes.astype(bool)):
            assert filled(Accuracy(), outputs, targets).value() == 0.75
            assert filled(ConfusionMatrix(2), outputs, targets).matrix.tolist() == [[1, 0], [1, 2]]


def test_each_output_may_be_a_question_of_its_own():
    for weights, value in ((None, 0.75), ([1.0, 3.0], 5 / 8)):
        metric = filled(Accuracy(each_output=True), [[1.0, -1.0], [1.0, 1.0]], [[1, 0], [0, 1]], weights)
        assert metric.value() == value


def test_top_k_counts_rows_whose_class_is_among_the_k_largest(rng):
    assert filled(TopK(2), OUTPUTS, TARGETS).value() == 1.0
    assert filled(TopK(2), OUTPUTS, [0, 1, 0, 1]).value() == 0.0
    outputs, targets = rng.integers(0, 4, (200, 6)).astype(float), rng.integers(0, 6, 200)
    assert filled(TopK(1), outputs, targets).value() == filled(Accuracy(), outputs, targets).value()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_with_an_output_that_is_not_finite_is_wrong(bad):
    outputs = OUTPUTS.copy()
    outputs[0, 1] = bad  # of class 1, where +inf would otherwise be right
    assert filled(Accuracy(), outputs, TARGETS).value() == 0.5
    assert filled(TopK(2), outputs, TARGETS).value() == 0.75
    matrix = filled(ConfusionMatrix(3), outputs, TARGETS)
    assert matrix.value() == 0.5
    assert matrix.not_finite.tolist() == [0, 1, 0]
    row = matrix.report().classes[1]
    assert (row.recall, row.support) == (0, 1)
    assert "not finite" in matrix.text()


def test_a_nonfinite_row_of_weight_zero_counts_for_nothing():
    outputs = np.concatenate([OUTPUTS, np.full((1, 3), np.nan, np.float32)])
    for metric in (Accuracy(), TopK(1), ConfusionMatrix(3)):
        assert filled(metric, outputs, [*TARGETS, 0], [1, 1, 1, 1, 0]).value() == 0.75


@pytest.mark.parametrize(
    ("outputs", "targets", "weights", "message"),
    [
        (OUTPUTS, [0, 1], None, "targets are int64 of shape"),
        (OUTPUTS, [0, 1, 2, 3], None, "targets must be 0 to 2, got 0 to 3"),
        (OUTPUTS, [0, 1, 2, -1], None, "targets must be 0 to 2, got -1 to 2"),
        (OUTPUTS, [0.0, 1.0, 2.0, 0.0], None, "Give integer classes"),
        (OUTPUTS, np.full((4, 3), np.nan), None, "target of row 0 is not finite"),
        (OUTPUTS, TARGETS, [1.0], "weights must be numbers of shape .* got float64 of shape"),
        (OUTPUTS, TARGETS, [1, 1, -1, 1], "weight of row 2 must .* got -1.0"),
        (OUTPUTS, TARGETS, [1, np.nan, 1, 1], "weight of row 1 must .* got nan"),
        (np.array([["a"]]), [0], None, "outputs must be real numbers"),
        (np.array([0.5]), [2], None, "targets must be 0 to 1"),
        (np.array([0.5]), [np.nan], None, "targets must be 0 to 1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(outputs, targets, weights, message):
    with pytest.raises(InputError, match=message):
        Accuracy().update(outputs, targets, weights)


def test_metrics_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="top_2_accuracy: cannot merge with top_1_accuracy"):
        TopK(2).merge(TopK(1))
    with pytest.raises(InputError, match="cannot merge"):
        ConfusionMatrix(3).merge(ConfusionMatrix(2))
    with pytest.raises(InputError, match="k must be below the number of classes, got outputs of 3"):
        TopK(3).update(OUTPUTS, TARGETS)
    with pytest.raises(InputError, match=r"outputs must have . classes, got 3"):
        ConfusionMatrix(4).update(OUTPUTS, TARGETS)
    with pytest.raises(InputError, match=r"labels must be one per class, got 1"):
        matrix_of([[1, 0], [0, 1]]).report(["a"])
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="TopK: k must"):
            TopK(bad)
        with pytest.raises(InputError, match="classes must"):
            ConfusionMatrix(bad)
    with pytest.raises(InputError, match="classes must"):
        ConfusionMatrix(1)


def matrix_of(counts):
    """A confusion matrix with the given counts."""
    counts = np.asarray(counts)
    true, predicted = np.indices(counts.shape)
    repeats = counts.ravel()
    outputs = np.eye(len(counts))[np.repeat(predicted.ravel(), repeats)]
    return filled(ConfusionMatrix(len(counts)), outputs, np.repeat(true.ravel(), repeats))


def test_the_report_has_the_figures_worked_by_hand():
    matrix = matrix_of([[8, 2, 0], [1, 3, 0], [1, 0, 5]])
    assert matrix.matrix.tolist() == [[8, 2, 0], [1, 3, 0], [1, 0, 5]]
    report = matrix.report(["cat", "dog", "eel"])
    cat, dog, eel = report.classes
    assert (cat.label, cat.precision, cat.recall, cat.f1, cat.support) == ("cat", 8 / 10, 8 / 10, 16 / 20, 10)
    assert (dog.precision, dog.recall, dog.f1, dog.support) == (3 / 5, 3 / 4, 6 / 9, 4)
    assert (eel.precision, eel.recall, eel.f1, eel.support) == (1, 5 / 6, 10 / 11, 6)
    assert report.accuracy == 16 / 20
    assert report.macro.precision == pytest.approx(2.4 / 3, rel=1e-15)
    assert report.weighted.recall == pytest.approx(16 / 20, rel=1e-15)
    assert report.weighted.f1 == pytest.approx((0.8 * 10 + 2 / 3 * 4 + 10 / 11 * 6) / 20, rel=1e-15)
    assert report.to_dict()["classes"][1]["label"] == "dog"
    row = matrix_of([[2, 0], [0, 0]]).report().classes[1]
    assert (row.precision, row.recall, row.f1, row.support) == (0, 0, 0, 0)


def test_the_text_shows_counts_of_few_classes_and_figures():
    lines = matrix_of([[1200, 2], [1, 3]]).text(["no", "yes"]).splitlines()
    assert lines[0].split() == ["true", "\\", "predicted", "no", "yes", "precision", "recall", "F1", "rows"]
    assert lines[1].split() == ["no", "1,200", "2", "0.9992", "0.9983", "0.9988", "1,202"]
    assert lines[-1].split() == ["accuracy", "0.9975", "1,206"]
    assert len({len(line) for line in lines}) == 1
    lines = matrix_of(np.eye(21, dtype=int)).text().splitlines()
    assert (lines[0].split(), len(lines)) == (["class", "precision", "recall", "F1", "rows"], 1 + 21 + 3)


def test_the_table_takes_labels_as_they_are(require):
    out = require("rich.console").Console(width=120, file=io.StringIO())
    out.print(matrix_of([[5, 1], [0, 0]]).table(["[red]", "b"]))
    text = out.file.getvalue()
    assert "[red]" in text
    assert text.splitlines()[1].split() == ["[red]", "5", "1", "1.0000", "0.8333", "0.9091", "6"]


def test_a_class_that_does_not_occur_does_not_count_in_the_macro_mean():
    matrix = ConfusionMatrix(10)
    matrix.update(np.eye(10)[[0, 1, 2, 2, 3]], np.asarray([0, 1, 2, 1, 2]))  # 3 is only predicted
    # f1 of 0: 1, of 1: 2/3, of 2: 1/2, of 3: 0, as f1_score(average="macro") of scikit-learn 1.7 has it
    assert matrix.report().macro.f1 == pytest.approx((1 + 2 / 3 + 1 / 2 + 0) / 4, rel=1e-15)
