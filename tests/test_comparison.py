"""Evaluating several at once, and what is known of files that say little of themselves."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.devices import DeviceOptions
from configs.foreign import ForeignOptions, NetOverrides
from datasets.input_pipeline import evaluation_batches
from engine import checkpoints, evaluation
from engine.classifiers import Classifier, Runtime, in_batches, load_classifier, loading, softmax
from engine.classifiers.interface import Interface
from engine.distributed.cluster import SINGLE_PROCESS
from engine.distributed.distribution import make_strategy
from engine.evaluation.dataset import find_dataset
from engine.evaluation.measure import EvalSource, measure
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.outcomes import Collector
from engine.evaluation.subject import FileSubject
from nets.variables import slim_variables
from preprocessing.preprocessing_factory import get_preprocessing
from support.errors import InputError
from tests.runs import eval_config, tiny_spec


def compare(*paths: Path | str, **options: Any) -> list[dict[str, Any]]:
    return evaluation.compare(eval_config('', compare=tuple(map(str, paths)), **options))


# ------------------------------------------------------------------------ the table


def test_each_has_the_numbers_of_its_own_evaluation(trained, tmp_path, capsys):
    raw, averaged = (
        evaluation.evaluate(
            eval_config(trained.checkpoint_path, eval_dir=str(tmp_path), recall_at=(2, 5), moving_average_decay=decay)
        )
        for decay in (None, 0.9)
    )
    capsys.readouterr()
    path = tmp_path / 'results.json'
    first, second = compare(
        trained.checkpoint_path,
        Path(trained.checkpoint_path).parent,
        recall_at=(2, 5),
        batch_size=77,
        results_path=str(path),
    )
    for result in (first, second):
        assert {name: result[name] for name in ('accuracy', 'recall_at_2', 'recall_at_5', 'num_examples')} == {
            name: raw[name] for name in ('accuracy', 'recall_at_2', 'recall_at_5', 'num_examples')
        }
        assert (result['step'], result['kind'], result['agreement']) == (300, 'checkpoint', 1.0)
        assert result['bytes'] > 0
        assert result['images_per_second'] > 0
    (of_averages,) = compare(trained.checkpoint_path, moving_average_decay=0.9)
    assert of_averages['accuracy'] == averaged['accuracy']
    written = json.loads(path.read_text())
    assert [each['per_class'] for each in written['compared']] == [first['per_class'], second['per_class']]
    assert [each['loss'] for each in written['compared']] == [first['loss'], second['loss']]
    heading, *rows = capsys.readouterr().out.splitlines()[:3]
    assert heading.split() == ['file', 'kind', 'MB', 'Accuracy', 'Recall_2', 'Recall_5', 'images/s', 'agreement']
    assert [row.split()[3] for row in rows] == [f'{raw["accuracy"]:.2%}'] * 2


class Seen:
    """Keeps all batches: an observer."""

    def __init__(self) -> None:
        self.batches: list[ScoredBatch] = []

    def observe(self, batch: ScoredBatch) -> None:
        self.batches.append(batch)


def test_every_observer_sees_each_example_once_with_all_scores(trained):
    """Beside the net stands one that says class 3 of every image, and prepares images in another way."""
    net, strategy = load_classifier(trained.checkpoint_path), make_strategy(DeviceOptions(devices='cpu'))
    spec = dataclasses.replace(net.spec, preprocessing_name='inception', channels=3)
    constant = Classifier(
        'constant', 'x', spec, 0, Interface(), lambda images: np.eye(10, dtype=np.float32)[[3] * len(images)]
    )
    config = eval_config('')
    dataset = find_dataset(config.evaluation, config.net, net.path, net.spec, SINGLE_PROCESS)
    seen, collector = Seen(), Collector(1)
    source = EvalSource(dataset, strategy, batch_size=100)
    subjects = [FileSubject(each, strategy) for each in (net, constant)]
    _, second = measure(subjects, source, (1, 5), [collector, seen])
    batch = next(iter(evaluation_batches(dataset, net.preprocessing, dataset.num_examples)))
    scores = net.scores(batch['image'].numpy())
    assert (collector.outcomes().predictions == 3).all()
    assert second['accuracy'] == np.mean(batch['label'].numpy() == 3)
    assert [len(each.numbers) for each in seen.batches] == [100, 100, 100, 60]
    np.testing.assert_array_equal(np.concatenate([each.numbers for each in seen.batches]), np.arange(360))
    np.testing.assert_array_equal(np.concatenate([each.labels for each in seen.batches]), batch['label'])
    np.testing.assert_allclose(np.concatenate([each.scores[0] for each in seen.batches]), scores, atol=1e-5)
    broken = dataclasses.replace(constant, run=lambda images: np.full((len(images), 10), np.nan, np.float32))
    with pytest.raises(InputError, match='constant gives values that are not finite: it is damaged, or has diverged'):
        measure([FileSubject(broken, strategy)], source, (1,))
    (part,) = measure(subjects[:1], EvalSource(dataset, strategy, batch_size=50, max_batches=2), (1,))
    assert part['num_examples'] == 100


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'eval_dir': 'x'}, '--eval_dir=x: --compare evaluates each file once, in a single process; leave it out'),
        ({'worker_hosts': ('a:1', 'b:1'), 'task': 0}, r"--worker_hosts=\('a:1', 'b:1'\): --compare evaluates each"),
    ],
)
def test_what_several_cannot_have_is_refused(option, message):
    with pytest.raises(InputError, match=message):
        compare('a', 'b', **option)


@pytest.fixture
def of_no_data_set(tmp_path) -> Path:
    """A folder as written by an import: a net of 1000 classes, trained on unknown data."""
    spec = tiny_spec(num_classes=1000, channels=3)
    folder = tmp_path / 'imported'
    variables = {name: variable.value for name, variable in slim_variables(spec.make_model()).items()}
    checkpoints.save(str(folder), 0, variables, 0)
    spec.save(str(folder))
    return folder


@pytest.mark.quick('None')
@pytest.mark.parametrize('offset', [None, 1])
def test_the_background_class_is_left_out_where_nothing_says_otherwise(of_no_data_set, shared_path, tmp_path, offset):
    imagenet = {'dataset_name': 'imagenet', 'dataset_dir': str(shared_path('data/imagenet_mini')), 'max_num_batches': 1}
    options = {**imagenet, 'labels_offset': offset, 'batch_size': 4}
    results = evaluation.evaluate(eval_config(of_no_data_set, eval_dir=str(tmp_path / 'eval'), **options))
    (compared,) = compare(of_no_data_set, **options)
    assert results['num_examples'] == compared['num_examples'] == 4


def test_what_a_flag_says_is_not_changed(of_no_data_set, shared_path):
    imagenet = {'dataset_name': 'imagenet', 'dataset_dir': str(shared_path('data/imagenet_mini'))}
    with pytest.raises(InputError, match=r'has 1000 classes, but imagenet in .* has 1001: give --labels_offset=1$'):
        compare(of_no_data_set, labels_offset=0, **imagenet)


# ------------------------------------------------------------------------ files of others


def runtime(shape: tuple[int | None, ...], metadata: dict[str, Any] | None = None) -> Runtime:
    return Runtime('x', shape, 10, metadata or {}, lambda images: np.zeros((len(images), 10), np.float32))


@pytest.fixture
def load(monkeypatch):
    """Returns a function that loads a file which is opened as a runtime says."""

    def load(opened: Runtime, asked: dict[str, Any] | None = None, **foreign: Any) -> Classifier:
        monkeypatch.setattr(loading, 'find_runtime', lambda path: lambda path, foreign: opened)
        return load_classifier('net.onnx', NetOverrides(**(asked or {})), ForeignOptions(**foreign))

    return load


VGG = {'preprocessing_name': 'vgg'}


def test_a_named_net_brings_its_preprocessing(load):
    classifier = load(runtime((None, None, None, 3)), {'model_name': 'bvlc_alexnet'})
    spec, interface = classifier.spec, classifier.interface
    assert (spec.preprocessing_name, spec.image_size, interface.channel_order) == ('caffe', 224, 'BGR')
    assert load(runtime((None, 3, 64, 64)), {'model_name': 'bvlc_alexnet', **VGG}).spec.preprocessing_name == 'vgg'
    with pytest.raises(InputError, match=r'give --preprocessing_name, .*, or --model_name, whose own is then taken'):
        load(runtime((None, 3, 64, 64)))


@pytest.mark.parametrize(
    ('shape', 'asked', 'foreign', 'layout', 'size', 'channels'),
    [
        ((None, 3, 64, 64), VGG, {}, 'NCHW', 64, 3),
        ((1, 64, 64, 3), VGG, {}, 'NHWC', 64, 3),
        ((None, 3, None, None), {**VGG, 'image_size': 32}, {}, 'NCHW', 32, 3),
        ((None, 3, 3, 3), VGG, {'layout': 'NCHW'}, 'NCHW', 3, 3),
        ((None, 28, 28, 1), {'preprocessing_name': 'lenet'}, {}, 'NHWC', 28, 1),
    ],
)
def test_a_shape_says_layout_and_size(load, shape, asked, foreign, layout, size, channels):
    classifier = load(runtime(shape), asked, **foreign)
    assert classifier.interface.layout == layout
    assert (classifier.spec.image_size, classifier.spec.channels) == (size, channels)
    assert classifier.scores(np.zeros((2, size, size, channels), np.float32)).shape == (2, 10)


@pytest.mark.parametrize(
    ('shape', 'asked', 'foreign', 'message'),
    [
        ((1, 64, 64, 3), {}, {}, 'net.onnx does not say how its images are prepared: give --preprocessing_name, for'),
        ((1, 64), VGG, {}, r'net.onnx takes \[1, 64\]; images have four axes'),
        ((1, 64, 32, 3), VGG, {}, 'takes images of 64x32 pixels; only square images'),
        ((None, None, None, 3), VGG, {}, 'takes images of any size: give --image_size'),
        ((1, 64, 64, 3), VGG, {'layout': 'NCHW'}, 'only square images'),
        ((1, 10**9, 10**9, 3), VGG, {}, r'takes images of 1000000000 pixels; at most 8192 are supported'),
        ((1, 64, 64, 4), VGG, {}, 'takes images of 4 channels with --layout=NHWC; only 3 and 1 are supported'),
        ((1, 64, 64, 3), {**VGG, 'image_size': 32}, {}, r'--image_size=32, but net.onnx takes images of 64 pixels'),
    ],
)
def test_too_little_is_not_guessed(load, shape, asked, foreign, message):
    with pytest.raises(InputError, match=message):
        load(runtime(shape), asked, **foreign)


def described(trained, **changes: Any) -> dict[str, Any]:
    classifier = load_classifier(trained.checkpoint_path)
    normalization = json.loads(json.dumps(dataclasses.asdict(classifier.preprocessing.normalization)))
    spec = {**dataclasses.asdict(classifier.spec), **changes.pop('spec', {})}
    whole = {'model': spec, 'global_step': 7, 'interface': {'layout': 'NHWC'}, 'normalization': normalization}
    return {**whole, **changes}


def test_a_file_that_describes_itself_needs_nothing(load, trained):
    classifier = load(runtime((None, 8, 8, 1), described(trained)))
    assert (classifier.step, classifier.spec.model_name) == (7, 'lenet')


@pytest.mark.parametrize(
    ('changes', 'shape', 'asked', 'foreign', 'message'),
    [
        ({}, (None, 8, 8, 1), {'model_name': 'cifarnet'}, {}, r'contradict how the net was trained.*\(lenet\)'),
        ({}, (None, 8, 8, 1), {}, {'layout': 'NCHW'}, '--layout=NCHW, but the file says NHWC; leave it out'),
        ({}, (None, 8, 8, 3), {}, {}, r'takes images of shape \[8, 8, 3\], but \[8, 8, 1\] are what lenet'),
        ({'interface': {'layout': 'CHWN'}}, (None, 8, 8, 1), {}, {}, 'damaged, or by another version: layout is'),
        ({'model': {'model_name': 1}}, (None, 8, 8, 1), {}, {}, 'damaged, or by another version'),
        ({'global_step': 'x'}, (None, 8, 8, 1), {}, {}, 'damaged, or by another version'),
        ({'global_step': float('inf')}, (None, 8, 8, 1), {}, {}, 'damaged, or by another version'),
        ({'global_step': 10**400}, (None, 8, 8, 1), {}, {}, 'global_step is not from 0 to'),
        ({'model': None}, (None, 8, 8, 1), {}, {}, 'damaged, or by another version: no net'),
        ({'normalization': {}}, (None, 8, 8, 1), {}, {}, 'its normalization is not that of lenet preprocessing'),
        ({'interface': {'include_preprocessing': 'maybe'}}, (None, 8, 8, 1), {}, {}, "'maybe', not true or false"),
        ({'spec': {'label_names': ['a']}}, (None, 8, 8, 1), {}, {}, '1 label_names for 10 classes'),
        ({'spec': {'label_names': [1] * 10}}, (None, 8, 8, 1), {}, {}, 'label_names are not all text'),
        ({'spec': {'label_names': '0123456789'}}, (None, 8, 8, 1), {}, {}, 'label_names are no list'),
        ({'spec': {'labels_offset': -5}}, (None, 8, 8, 1), {}, {}, 'labels_offset is -5, which is below 0'),
        ({'spec': {'record_keys': [1]}}, (None, 8, 8, 1), {}, {}, 'record_keys are not all text'),
        ({'spec': {'record_keys': ['x=y']}}, (None, 8, 8, 1), {}, {}, '--record_keys=x=y: unknown entry x=y'),
        ({'spec': {'file_pattern': '{x}'}}, (None, 8, 8, 1), {}, {}, '--file_pattern={x}: only {split}'),
    ],
)
def test_what_contradicts_itself_is_refused(load, trained, changes, shape, asked, foreign, message):
    with pytest.raises(InputError, match=message):
        load(runtime(shape, described(trained, **changes)), asked, **foreign)


@pytest.mark.parametrize('output', ['logits', 'probabilities'])
@pytest.mark.parametrize('channel_order', ['RGB', 'BGR'])
@pytest.mark.parametrize('layout', ['NHWC', 'NCHW'])
@pytest.mark.parametrize('include_preprocessing', [False, True])
def test_an_interface_prepares_what_a_file_takes(layout, channel_order, include_preprocessing, output):
    preprocessing = get_preprocessing('vgg', 4)
    images = np.random.RandomState(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    interface = Interface(layout, channel_order, include_preprocessing, output)
    expected = images if include_preprocessing else images - np.array([123.68, 116.78, 103.94], np.float32)
    expected = expected[..., ::-1] if channel_order == 'BGR' else expected
    expected = expected.transpose(0, 3, 1, 2) if layout == 'NCHW' else expected
    prepared = interface.prepare(images, preprocessing)
    np.testing.assert_allclose(prepared, expected, rtol=1e-6, atol=1e-5)
    assert prepared.shape[1:] == interface.input_shape(preprocessing)


def test_what_takes_a_fixed_batch_is_given_it():
    sizes = []

    def run(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images[:, :2] * 2

    images = np.arange(15.0).reshape(5, 3)
    np.testing.assert_array_equal(in_batches(run, 2, images), images[:, :2] * 2)
    assert sizes == [2, 2, 2]


def test_softmax_of_large_logits():
    np.testing.assert_allclose(
        softmax(np.array([[1000.0, 1000.0], [0.0, -1000.0]], np.float32)), [[0.5, 0.5], [1.0, 0.0]]
    )
