"""The losses and the metrics against slim's own numbers, `tf.nn.in_top_k` and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.evaluation.metrics import Counts, ScoredBatch, clip_recall_at, count_recognised
from engine.optim.losses import l2_loss, softmax_cross_entropy
from preprocessing.mixing import Targets


@pytest.fixture(scope='module')
def golden(shared_path):
    return np.load(shared_path('goldens/losses_metrics_ema.npz'))


@pytest.mark.parametrize('label_dtype', [np.int32, np.int64])
@pytest.mark.parametrize('weight', ['1', '0.4'])
@pytest.mark.parametrize('label_smoothing', ['0', '0.1', '0.3'])
def test_cross_entropy_is_that_of_slim(golden, label_smoothing, weight, label_dtype):
    labels = golden['labels'].astype(label_dtype)
    losses = softmax_cross_entropy(tf.constant(golden['logits']), labels, float(label_smoothing))
    assert losses.shape == labels.shape
    expected = golden[f'ce_ls{label_smoothing}_w{weight}']
    np.testing.assert_allclose(float(weight) * np.mean(losses), expected, rtol=1e-6)


@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
def test_labels_out_of_range_have_neither_loss_nor_gradient(label_smoothing):
    logits = tf.constant(np.random.RandomState(0).normal(size=(4, 10)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = softmax_cross_entropy(logits, tf.constant([-1, 0, 9, 10]), label_smoothing)
    gradient = tape.gradient(losses, logits)
    np.testing.assert_array_equal(losses.numpy() != 0, [False, True, True, False])
    np.testing.assert_array_equal(np.any(gradient.numpy(), axis=1), [False, True, True, False])


def test_gradient_without_smoothing_is_that_of_one_hot_targets():
    logits = tf.constant(np.random.RandomState(0).normal(size=(5, 7)), tf.float32)
    labels = tf.constant([0, 6, 3, 3, 1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = softmax_cross_entropy(logits, labels)
    expected = tf.nn.softmax(logits) - tf.one_hot(labels, 7)
    np.testing.assert_allclose(tape.gradient(losses, logits), expected, rtol=1e-5, atol=1e-7)


def test_l2_loss_halves_the_squares_of_decayed_variables():
    variables = {
        'weights': keras.Variable([[1.0, -2.0], [3.0, 0.0]]),
        'biases': keras.Variable([5.0, 5.0]),
        'more': tf.Variable([2.0]),
    }
    loss = l2_loss(variables, {'weights': 0.1, 'more': 0.5})
    np.testing.assert_allclose(loss, 0.1 * 14 / 2 + 0.5 * 4 / 2, rtol=1e-6)
    assert l2_loss(variables, {}) == 0.0


def results(
    recall_at: tuple[int, ...], logits: np.ndarray, labels: np.ndarray, batch_size: int = 1000
) -> dict[str, float]:
    """Returns the results of `Counts` over batches of a size."""
    counts = Counts(recall_at)
    for first in range(0, len(labels), batch_size):
        rows = slice(first, first + batch_size)
        counts.observe(ScoredBatch(np.arange(len(labels))[rows], labels[rows], (logits[rows],), ('logits',)))
    return counts.results()


@pytest.mark.parametrize('k', [1, 2, 3, 4, 5, 10, 11])
def test_hits_are_those_of_slim(golden, k):
    """Rows with ties, NaN and infinity, one at a time."""
    labels = golden['metric_labels']
    right, hits = golden['argmax'] == labels, golden[f'in_top_{k}']
    for row in range(len(labels)):
        found = results((k,), golden['metric_logits'][row : row + 1], labels[row : row + 1])
        assert (found['num_examples'], found['accuracy'], found[f'recall_at_{k}']) == (1, right[row], hits[row])


def test_results_are_slims_streaming_metrics(golden):
    result = results((3, 4, 5), golden['metric_logits'], golden['metric_labels'])
    assert result['num_examples'] == len(golden['metric_labels'])
    np.testing.assert_allclose(result['accuracy'], golden['stream_Accuracy'], rtol=1e-6)
    for k in (3, 4, 5):
        np.testing.assert_allclose(result[f'recall_at_{k}'], golden[f'stream_Recall_{k}'], rtol=1e-6)


def test_recall_is_that_of_in_top_k_whatever_the_batches():
    """Logits have ties and values that are not finite, and some labels are no class."""
    random = np.random.RandomState(1)
    logits, labels = random.randint(0, 4, (60, 8)).astype(np.float32), random.randint(-1, 9, 60)
    logits[::11, 2], logits[::13, 5] = np.nan, -np.inf
    for batch_size in (1, 7, 60):
        found = results((1, 2, 5, 8), logits, labels, batch_size)
        for k in (1, 2, 5, 8):
            assert found[f'recall_at_{k}'] == np.mean(tf.nn.in_top_k(labels, logits, k))


def test_no_examples_give_no_shares():
    result = Counts((2,), 'probabilities').results()
    assert result.pop('num_examples') == 0
    assert np.isnan(list(result.values())).all()
    assert list(result) == ['accuracy', 'recall_at_2']


@pytest.mark.parametrize(
    ('recall_at', 'classes', 'expected'),
    [((5,), 10, (5,)), ((5,), 3, (3,)), ((1, 5, 10), 5, (1, 5)), ((5, 1), 1000, (5, 1)), ((), 10, ())],
)
def test_k_is_at_most_the_number_of_classes(recall_at, classes, expected):
    assert clip_recall_at(recall_at, classes) == expected


def test_mixed_images_are_recognised_as_the_label_with_the_larger_share():
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 3]]
    labels, others = tf.constant([0, 0, 2, 3, -1]), tf.constant([1, 1, 3, 2, 3])
    assert count_recognised(logits, Targets(labels)) == 3
    shares = tf.constant([0.5, 0.4, 0.3, 1.0, 0.0])
    assert count_recognised(logits, Targets(labels, others, shares)) == 4
