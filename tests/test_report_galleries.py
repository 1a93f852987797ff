"""The pictures and facts of a report: which examples galleries show, filters, training images, recipe."""

import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from datasets import dataset_factory
from datasets.input_pipeline import evaluation_batches
from engine.distributed.cluster import SINGLE_PROCESS
from engine.distributed.distribution import make_strategy
from engine.evaluation.dataset import find_dataset
from engine.evaluation.outcomes import make_outcomes
from engine.evaluation.report.galleries import draw_filters, make_galleries, make_preparations
from engine.evaluation.report.gathering import gather
from engine.evaluation.statistics import compute
from engine.evaluation.subject import open_subject
from nets import nets_factory
from preprocessing.preprocessing_factory import get_preprocessing
from tests.runs import eval_config


def outcomes_of(labels, predictions, probabilities, confidences):
    labels, predictions = np.array(labels), np.array(predictions)
    return make_outcomes(
        numbers=np.arange(len(labels)),
        labels=labels,
        predictions=predictions,
        correct=labels == predictions,
        ranks=np.where(np.isnan(probabilities), 0, 1 + (labels != predictions)),
        probabilities=probabilities,
        confidences=confidences,
    )


@pytest.fixture
def digits(digits_dir):
    return dataset_factory.get_dataset('digits', str(digits_dir), 'test')


def test_galleries_hold_confident_mistakes_hesitant_successes_and_likely_label_errors(digits):
    """Of class 1, 0.9 is the mean confidence: example 3 exceeds it; example 4 does not. Example 5 is not finite."""
    outcomes = outcomes_of(
        labels=[1, 1, 0, 0, 0, 0],
        predictions=[1, 1, 0, 1, 1, 1],
        probabilities=[0.85, 0.95, 0.6, 0.01, 0.4, np.nan],
        confidences=[0.85, 0.95, 0.6, 0.99, 0.55, np.nan],
    )
    preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)
    mistakes, successes, errors = make_galleries(outcomes, digits, preprocessing, None)
    assert [picture.id for picture in mistakes.pictures] == [f'digits_test.tfrecord, record {i}' for i in (3, 4)]
    assert [picture.confidence for picture in successes.pictures] == [0.6, 0.85, 0.95]
    assert [(picture.label, picture.prediction) for picture in errors.pictures] == [(0, 1)]
    (picture,) = errors.pictures
    stored = tf.io.decode_image(digits.examples.check(3)['image']).numpy()
    assert picture.image.shape == (64, 64, 3)  # 8x8, in whole pixels
    np.testing.assert_array_equal(picture.image[::8, ::8, 0], stored[..., 0])


def test_empty_galleries_are_left_out(digits):
    all_right = outcomes_of([1, 2], [1, 2], [0.9, 0.8], [0.9, 0.8])
    preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)
    assert [each.title for each in make_galleries(all_right, digits, preprocessing, None)] == [
        'Least confident successes'
    ]


def test_each_picture_is_explained_for_its_prediction(digits):
    seen = []

    def explain(images, classes):
        seen.append((np.asarray(images), classes.tolist()))
        return np.full((len(images), 28, 28, 3), 7, np.uint8)

    preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)
    outcomes = outcomes_of([3, 4], [3, 9], [0.9, 0.1], [0.9, 0.8])
    mistakes, *_ = make_galleries(outcomes, digits, preprocessing, explain)
    assert np.all(np.asarray(mistakes.pictures[0].explanation) == 7)
    batch = next(iter(evaluation_batches(digits, preprocessing, 2)))
    ((images, classes),) = seen
    np.testing.assert_array_equal(images, batch['image'])
    assert classes == [3, 9]


def test_filters_are_scaled_each_by_its_largest_weight():
    model = nets_factory.make_model('lenet', 10, image_size=28, channels=1)
    kernel = next(each for each in model.trainable_variables if len(each.shape) == 4)
    values = np.zeros(kernel.shape, np.float32)
    values[0, 0, 0, 0], values[0, 1, 0, 0] = 2.0, -1.0
    kernel.assign(values)
    grid = draw_filters(model, 'RGB')
    assert grid is not None
    scale = -(-44 // 5)
    first = grid[2 : 2 + 5 * scale : scale, 2 : 2 + 5 * scale : scale, 0]
    assert (first[0, 0], first[0, 1], first[1, 1]) == (255, 64, 128)
    assert grid.shape == (6 * (5 * scale + 4), 6 * (5 * scale + 4), 3)  # 32 filters


def test_training_images_are_shown_as_the_net_sees_them(digits):
    preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)
    prepared = make_preparations(digits, preprocessing, seed=1)
    assert len(prepared) == 8
    for each in prepared:
        assert each.image.shape == (64, 64, 3)
        assert [version.shape for version in each.prepared] == [(84, 84, 3)] * 4


def test_the_content_of_an_evaluation(train_digits, tmp_path):
    log = {'log_every_n_steps': 2, 'save_summaries_secs': 600}
    run = train_digits(tmp_path, max_number_of_steps=4, eval_every_steps=4, eval_split_name='test[:20]', **log)
    config = eval_config(run.checkpoint_path)
    strategy = make_strategy(DeviceOptions(devices='cpu'))
    subject = open_subject(run.checkpoint_path, config, strategy, SINGLE_PROCESS)
    dataset = find_dataset(config.evaluation, config.net, subject.path, subject.spec, SINGLE_PROCESS)
    labels = np.arange(20) % 10
    outcomes = outcomes_of(labels, (labels + (np.arange(20) > 15)) % 10, [0.3] * 20, [0.7] * 20)
    content = gather([subject], [outcomes], [compute(outcomes, (1,))], [{'kind': 'checkpoint'}], dataset, strategy)
    assert content.example_ids[3] == 'digits_test.tfrecord, record 3'
    curves = {(curve.chart, curve.name): curve.steps.tolist() for curve in content.curves}
    assert curves == {
        ('cross-entropy', 'training'): [1, 2, 4],
        ('cross-entropy', 'test_-20'): [4],
        ('accuracy', 'training'): [1, 2, 4],
        ('accuracy', 'test_-20'): [4],
        ('learning rate', 'training'): [1, 2, 4],
    }
    assert [len(gallery.pictures) for gallery in content.galleries] == [4, 16, 4]
    assert len(content.preparations) == 8
    assert content.filters is not None
    assert content.recipe['--dataset_name'] == 'digits'
    assert 'tensorflow' in content.environment
