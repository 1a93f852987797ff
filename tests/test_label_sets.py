"""Evaluation over a subset of a net's classes, and over several right classes per image."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from configs.devices import DeviceOptions
from configs.evaluation import EvalConfig
from configs.options import make_config
from datasets import tfds as reader
from datasets import tfrecord
from datasets.conversion.imagenet_labels import load_wnids
from datasets.dataset_factory import get_dataset
from datasets.examples import StoredExamples
from engine import checkpoints, evaluation
from engine.classifiers import load_classifier, softmax
from engine.distributed.cluster import SINGLE_PROCESS
from engine.distributed.distribution import make_strategy
from engine.evaluation.class_map import find_labels, map_classes
from engine.evaluation.label_sets import LabelSet
from engine.evaluation.metrics import Counts, ScoredBatch
from engine.evaluation.outcomes import Collector
from engine.evaluation.real_labels import read_right_classes
from engine.evaluation.report.__main__ import report
from engine.evaluation.report.gathering import _explainer
from engine.evaluation.subject import open_subject
from nets.variables import slim_variables
from support.errors import InputError
from tests.runs import eval_config, tiny_spec

WNIDS = load_wnids()
CHOSEN = (999, 6, 380)  # ImageNet's numbers of the classes in the data sets below


def make_net(folder: Path, num_classes: int, label_names: Sequence[str] = (), seed: int = 0) -> Path:
    """A net of random weights."""
    spec = dataclasses.replace(tiny_spec(num_classes, channels=3), label_names=tuple(label_names))
    random = np.random.default_rng(seed)
    variables = slim_variables(spec.make_model())
    weights = {name: random.normal(0, 0.3, each.shape).astype(np.float32) for name, each in variables.items()}
    checkpoints.save(str(folder), 0, weights, 0)
    spec.save(str(folder))
    return folder


def images(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return [Image.fromarray(each) for each in pixels]


def write_folders(folder: Path, *names: str) -> Path:
    """Five images in each of some folders."""
    for name, number in zip(names, range(len(names)), strict=True):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images(5 * len(names))[5 * number :][:5]):
            image.save(folder / name / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def nets(tmp_path_factory) -> dict[int, Path]:
    """Nets of 1000 and of 1001 classes."""
    folder = tmp_path_factory.mktemp('nets')
    return {count: make_net(folder / str(count), count, seed=count) for count in (1000, 1001)}


def logits_and_labels(net: Path, name: str, folder: Path, split: str, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns a net's logits, float32 [examples, classes], and the labels of a split."""
    classifier = load_classifier(str(net))
    dataset = get_dataset(name, str(folder), split, offset, classes_of_net=())
    examples = [dataset.examples.check(number) for number in range(dataset.num_examples)]
    prepared = [classifier.preprocessing.host_eval(example['image']).numpy() for example in examples]
    return classifier.scores(np.stack(prepared)), np.array([int(example['label']) - offset for example in examples])


def evaluate(net: Path, tmp_path: Path, **options: Any) -> dict[str, Any]:
    return evaluation.evaluate(eval_config(net, **{'eval_dir': str(tmp_path / 'eval'), 'recall_at': (1, 2), **options}))


# ------------------------------------------------------------------------ subsets of classes


def check_subset(results: dict[str, Any], logits: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> None:
    """Compares results with the published code of ImageNet-A and -R: `logits[:, indices]`; labels are of these."""
    chosen = logits[:, classes]
    of_labels = np.take_along_axis(chosen, labels[:, np.newaxis], -1)
    assert results['num_examples'] == len(labels)
    assert results['accuracy'] == (chosen.argmax(-1) == labels).mean()
    for k in (1, 2):
        assert results[f'recall_at_{k}'] == ((chosen > of_labels).sum(-1) < k).mean()
    loss = -np.log(np.take_along_axis(softmax(chosen), labels[:, np.newaxis], -1)).mean()
    assert results['loss'] == pytest.approx(loss, rel=1e-4)


@pytest.mark.quick('1001')
@pytest.mark.parametrize('num_classes', [1000, 1001])
def test_folders_of_wnids_are_scored_over_their_classes(nets, tmp_path, num_classes):
    folder = write_folders(tmp_path / 'imagenet-x', *(WNIDS[index] for index in CHOSEN))
    rows, path = tmp_path / 'p.jsonl', tmp_path / 'r.json'
    options = {'dataset_name': 'image_folder', 'dataset_dir': str(folder), 'dataset_split_name': 'test'}
    with pytest.raises(InputError, match=r'has 3: .*; or --class_map, if image_folder has a subset of its classes$'):
        evaluate(nets[num_classes], tmp_path, **options)
    options |= {'class_map': 'names', 'predictions_path': str(rows), 'results_path': str(path)}
    results = evaluate(nets[num_classes], tmp_path, batch_size=4, predictions_logits=True, **options)
    classes = [index + num_classes - 1000 for index in sorted(CHOSEN)]  # folders are sorted by name, as wnids are
    logits, labels = logits_and_labels(nets[num_classes], 'image_folder', folder, 'test')
    check_subset(results, logits, labels, classes)
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {row['label_name'] for row in written} == {WNIDS[index] for index in CHOSEN}
    np.testing.assert_allclose([row['logits'] for row in written], logits[:, classes], rtol=1e-5)
    assert json.loads(path.read_text())['label_set'] == {'class_map': 'names', 'num_classes': 3}
    part = get_dataset('image_folder', str(folder), 'test[:2]', classes_of_net=())
    assert find_labels(part) == [0, 1, 2], 'a slice is scored over the classes of its split'


class PartOfImagenet(tfds.core.GeneratorBasedBuilder):
    """As TFDS's imagenet_a: it declares all classes of ImageNet, and has images of some."""

    VERSION = tfds.core.Version('1.0.0')
    LABELS: ClassVar = [index for index in CHOSEN for _ in range(3)]

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=WNIDS)
        features = {'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'), 'label': label}
        features['file_name'] = tfds.features.Text()
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=('image', 'label'))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {'test': self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (image, label) in enumerate(zip(images(len(self.LABELS)), self.LABELS, strict=True), 1):
            name = f'ILSVRC2012_val_{number:08d}.JPEG'
            yield number, {'image': np.asarray(image), 'label': label, 'file_name': name}


def test_a_set_of_tfds_is_scored_over_the_classes_that_it_has(nets, tmp_path):
    reader.open_builder('part_of_imagenet', str(tmp_path))
    options = {'dataset_name': 'tfds:part_of_imagenet', 'dataset_dir': str(tmp_path), 'dataset_split_name': 'test'}
    results = evaluate(nets[1001], tmp_path, class_map='names', **options)
    logits, labels = logits_and_labels(nets[1001], 'tfds:part_of_imagenet', tmp_path, 'test')
    check_subset(results, logits, np.searchsorted(sorted(CHOSEN), labels), [index + 1 for index in sorted(CHOSEN)])
    # Its file names are those of ImageNet: ReaL's classes apply, as far as they are in the subset.
    real = [[CHOSEN[1], 5], [CHOSEN[0], CHOSEN[2]], [], [5], *[[index] for index in PartOfImagenet.LABELS[4:]]]
    (tmp_path / 'real.json').write_text(json.dumps(real))
    options |= {'class_map': 'names', 'real_labels': str(tmp_path / 'real.json')}
    results = evaluate(nets[1001], tmp_path, predictions_path=str(tmp_path / 'p.jsonl'), **options)
    assert results['label_set']['num_left_out'] == 2
    subset = sorted(CHOSEN)
    expected = sorted(sorted(subset.index(index) for index in each if index in subset) for each in real)
    rows = [json.loads(line) for line in (tmp_path / 'p.jsonl').read_text().splitlines()]
    assert sorted(row['real_labels'] for row in rows) == [each for each in expected if each]


def test_folders_that_are_numbers(nets, tmp_path):
    """As in ImageNet-V2: sorted as text, they would be other classes than they say."""
    folder = write_folders(tmp_path / 'v2', *map(str, range(12)))
    options = {'dataset_name': 'image_folder', 'dataset_dir': str(folder), 'dataset_split_name': 'test'}
    results = evaluate(nets[1001], tmp_path, class_map='numbers', **options)
    logits, labels = logits_and_labels(nets[1001], 'image_folder', folder, 'test')
    in_order = sorted(map(str, range(12)))
    check_subset(results, logits, labels, [int(name) + 1 for name in in_order])
    net = make_net(tmp_path / 'net', 12)
    with pytest.raises(InputError, match=r'numbers in the order of text, 0, 1, 10, ...; --class_map=numbers takes'):
        evaluate(net, tmp_path, **options)


def test_classes_in_another_order_have_the_names_of_the_net(tmp_path):
    names = ('cat', 'ant', 'bee')
    net = make_net(tmp_path / 'net', 3, names)
    folder = write_folders(tmp_path / 'data', *names)
    (folder / 'labels.txt').write_text('0:ant\n1:bee\n2:cat\n')
    options = {'dataset_name': 'image_folder', 'dataset_dir': str(folder), 'dataset_split_name': 'test'}
    with pytest.raises(InputError, match=r"number 0 is 'cat' there, 'ant' here; .*or --class_map, which finds"):
        evaluate(net, tmp_path, **options)
    results = evaluate(net, tmp_path, class_map='names', **options)
    logits, labels = logits_and_labels(net, 'image_folder', folder, 'test')
    check_subset(results, logits, labels, [1, 2, 0])
    assert [each['name'] for each in results['per_class']] == ['ant', 'bee', 'cat']


SPEC = dataclasses.replace(tiny_spec(5, 3), label_names=('crane', 'tench', 'crane', 'a, b', '7'))


@pytest.mark.parametrize(
    ('content', 'names', 'expected'),
    [
        ('n1,1\nn2,0\n', ('n2', 'n1'), [0, 1]),
        ('n1\ttench\nn2\t4\n\nn3\ta, b\nothers\t2\n', ('n1', 'n2', 'n3'), [1, 4, 3]),
        ('n1,a, b\nn2,7\n', ('n1', 'n2'), [3, 4]),
    ],
)
def test_a_class_map_in_a_file(tmp_path, content, names, expected):
    (tmp_path / 'map').write_text(content)
    assert map_classes(str(tmp_path / 'map'), names, 'net', SPEC).tolist() == expected


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('n1\n', "line 1: 'n1' is not of the form name,class"),
        ('n1,1\nn2,5\n', "line 2: '5' is neither a number from 0 to 4 nor the name of just one class of net"),
        ('n1,crane\n', "line 1: 'crane' is neither"),
        ('n1,1\nn1,2\n', "line 2: 'n1' is listed twice"),
        ('n1,1\nn2,1\n', "'n1' and 'n2' are both class 1 of net"),
        ('n1,1\n', "1 of the 2 classes of the data set are not found in net, such as 'n2': the file must have a line"),
        ('\0', 'not of the form'),
        (None, 'No such file'),
    ],
)
def test_class_maps_that_are_refused(tmp_path, content, message):
    path = tmp_path / 'map'
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as raised:
        map_classes(str(path), ('n1', 'n2'), 'net', SPEC)
    text = str(raised.value)
    assert text.startswith(f'--class_map={path}')
    assert message in text
    assert '\n' not in text


@pytest.mark.parametrize(
    ('class_map', 'names', 'message'),
    [
        (
            'names',
            ('tench', 'crane'),
            "1 of the 2 classes of the data set are not found in net, such as 'crane': names",
        ),
        ('names', (WNIDS[0], 'tench'), f'such as {WNIDS[0]!r}'),
        ('numbers', ('0', '05'), "such as '05': names must be numbers from 0 to 4"),
    ],
)
def test_names_that_are_not_found(class_map, names, message):
    with pytest.raises(InputError, match=message):
        map_classes(class_map, names, 'net', SPEC)


def test_a_data_set_without_names_is_refused(nets, tmp_path):
    records = write_validation(tmp_path / 'data', [1, 2])
    with pytest.raises(InputError, match=r'--class_map=names: imagenet in .* has no names of classes'):
        evaluate(nets[1001], tmp_path, dataset_name='imagenet', dataset_dir=str(records), class_map='names')


def test_probabilities_of_a_subset_sum_to_one(digits_dir):
    """As a softmax of the subset's logits; where all are 0, as int8 models give, they are equal."""
    logits = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    probabilities = softmax(logits)
    classes = np.array([7, 2, 3])
    probabilities[2, classes], probabilities[3, 2] = 0, np.nan
    dataset = get_dataset('digits', str(digits_dir), 'test[:4]')
    label_set = LabelSet(dataset, np.array([-1, -1, 1, 2, -1, -1, -1, 0, -1, -1]), (classes, classes))
    batch = ScoredBatch(np.arange(4), np.array([2, 3, 7, 7]), (logits, probabilities), ('logits', 'probabilities'))
    relabelled = label_set.relabel(batch)
    assert relabelled.labels.tolist() == [1, 2, 0, 0]
    all_three = np.tile(np.arange(3), (4, 1))
    from_logits, given = (relabelled.probabilities(index, all_three) for index in (0, 1))
    np.testing.assert_allclose(given[:2], from_logits[:2], rtol=1e-5)
    np.testing.assert_allclose(given[2], 1 / 3, rtol=1e-6)
    assert np.isnan(given[3]).all()


def test_a_report_explains_the_class_of_the_net(nets):
    strategy = make_strategy(DeviceOptions())
    subject = open_subject(str(nets[1001]), eval_config(nets[1001]), strategy, SINGLE_PROCESS)
    batch = tf.constant(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)), tf.float32)
    subset = np.array([7, 900])
    explain, of_net = _explainer(subject, subset), _explainer(subject, None)
    assert explain is not None
    assert of_net is not None
    np.testing.assert_array_equal(explain(batch, np.array([1])), of_net(batch, np.array([900])))
    assert (of_net(batch, np.array([900])) != of_net(batch, np.array([7]))).any()


# ------------------------------------------------------------------------ several right classes


def write_validation(
    folder: Path, numbers: Sequence[int], labels: Sequence[int] = (), prefix: str = 'ILSVRC2012_val_'
) -> Path:
    """Records of validation images in the order of their numbers as given, of label 1 + number."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for i, (number, image) in enumerate(zip(numbers, images(len(numbers)), strict=True)):
        file = io.BytesIO()
        image.save(file, 'PNG')
        name = f'{prefix}{number:08d}.JPEG' if prefix else ''
        label = labels[i] if labels else 1 + number
        encoded = file.getvalue()
        examples.append(tfrecord.imagenet_example(encoded, 8, 8, label, synset='', text='', filename=name))
    tfrecord.write_records(str(folder / 'validation-00000-of-00001'), examples)
    return folder


NUMBERS = (4, 1, 6, 3, 2, 5)
REAL = [[1], [2, 900], [], [4, 5, 6], [17, 5], [6]]  # of images 1 to 6


@pytest.mark.quick('1001')
@pytest.mark.parametrize('num_classes', [1000, 1001])
def test_real_labels_are_those_of_the_images_numbers(nets, tmp_path, num_classes, caplog):
    records = write_validation(tmp_path / 'data', NUMBERS)
    offset = 1001 - num_classes
    imagenet: dict[str, Any] = {'dataset_name': 'imagenet', 'dataset_dir': str(records)}
    logits, _ = logits_and_labels(nets[num_classes], 'imagenet', records, 'validation', offset)
    # The net is made to be right about image 2, by ReaL's other class.
    best = int(logits[NUMBERS.index(2)].argmax()) + offset - 1
    real = [*REAL[:1], [2, best], *REAL[2:]]
    (tmp_path / 'real.json').write_text(json.dumps(real))
    rows = tmp_path / 'p.csv'
    imagenet |= {'real_labels': str(tmp_path / 'real.json'), 'predictions_path': str(rows), 'batch_size': 2}
    results = evaluate(nets[num_classes], tmp_path, recall_at=(1, 100), **imagenet)
    kept = [(row, real[number - 1]) for row, number in zip(logits, NUMBERS, strict=True) if real[number - 1]]
    shift = num_classes - 1000
    best_ranks = [min((row > row[each + shift]).sum() + 1 for each in right) for row, right in kept]
    right = [row.argmax() - shift in right for row, right in kept]
    assert results['num_examples'] == 5
    assert results['accuracy'] == np.mean(right) >= 0.2
    assert results['recall_at_1'] == np.mean(np.array(best_ranks) <= 1)
    assert results['recall_at_100'] == np.mean(np.array(best_ranks) <= 100)
    assert results['label_set'] == {'real_labels': str(tmp_path / 'real.json'), 'num_left_out': 1}
    with rows.open(newline='') as file:
        written = list(csv.DictReader(file))
    assert [json.loads(row['real_labels']) for row in written] == [sorted(i + shift for i in each) for _, each in kept]
    assert [int(row['rank']) for row in written] == best_ranks
    assert [int(row['correct']) for row in written] == right
    for row, (_, each) in zip(written, kept, strict=True):
        assert int(row['label']) - shift in each
        assert (row['label'] == row['prediction']) == (row['correct'] == '1')
    report(str(rows), (1, 100), str(tmp_path / 'again.json'))
    again = json.loads((tmp_path / 'again.json').read_text())
    for name in ('num_examples', 'accuracy', 'recall_at_100', 'f1_macro', 'confusion'):
        assert again[name] == results[name]
    assert 'have their own label' not in caplog.text


def test_nets_with_and_without_background_are_compared(nets, tmp_path):
    folder = write_folders(tmp_path / 'imagenet-x', *(WNIDS[index] for index in CHOSEN))
    options = {'dataset_name': 'image_folder', 'dataset_dir': str(folder), 'dataset_split_name': 'test'}
    path, both = tmp_path / 'r.json', tuple(map(str, nets.values()))
    options |= {'class_map': 'names', 'results_path': str(path)}
    compared = evaluation.compare(make_config(EvalConfig, compare=both, recall_at=(1, 2), **options))
    for count, results in zip(nets, compared, strict=True):
        logits, labels = logits_and_labels(nets[count], 'image_folder', folder, 'test')
        check_subset(results, logits, labels, [index + count - 1000 for index in sorted(CHOSEN)])
    assert json.loads(path.read_text())['label_set'] == {'class_map': 'names', 'num_classes': 3}


def test_several_right_classes_in_a_comparison(nets, tmp_path, capsys):
    records = write_validation(tmp_path / 'data', NUMBERS)
    (tmp_path / 'real.json').write_text(json.dumps(REAL))
    options = {'dataset_name': 'imagenet', 'dataset_dir': str(records), 'real_labels': str(tmp_path / 'real.json')}
    compared = (str(nets[1001]), os.path.relpath(nets[1001]))
    config = make_config(EvalConfig, compare=compared, max_num_batches=2, batch_size=2, **options)
    first, second = evaluation.compare(config)
    assert first['num_examples'] == 3, 'of 4, 1, 6 and 3, the last has no right class'
    assert first['accuracy'] == second['accuracy']
    assert 'evaluated 3 of 6' in capsys.readouterr().out


def read_classes(records: Path, content: Any) -> np.ndarray:
    """The right classes by a file, bool [examples, 1001]."""
    path = records / 'real.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    dataset = get_dataset('imagenet', str(records), 'validation')
    return read_right_classes(str(path), dataset, dataset.num_examples, np.arange(1, 1001)).toarray()


def test_images_without_names_are_in_the_order_of_the_file(tmp_path, caplog):
    records = write_validation(tmp_path / 'data', NUMBERS, prefix='')
    right = read_classes(records, REAL)
    assert [(np.flatnonzero(row) - 1).tolist() for row in right] == [sorted(each) for each in REAL]
    assert 'the examples have no file names, and are taken to be in the order of the file' in caplog.text
    assert 'only 0 of 5 images looked at have their own label among the right classes; is this the file' in caplog.text
    with pytest.raises(InputError, match='its 5 lists cannot be matched with the 6 examples of imagenet, split val'):
        read_classes(records, REAL[1:])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[[1], [2]', 'not JSON: '),
        ('{"a": []}', 'must be a list with a list of classes for each image'),
        ('[[1], 2, [], [], [], []]', 'item 1 is 2, must be a list of class numbers'),
        ('[[1], [2], ["x"], [], [], []]', r"item 2 is \['x'\], must be a list of class numbers"),
        ('[[1], [2], [true], [], [], []]', r'item 2 is \[True\], must be a list of class numbers'),
        ('[[1], [2], [1000], [], [], []]', 'item 2 has the class 1000, must be from 0 to 999'),
        ('[[1], [2], [-1], [], [], []]', 'item 2 has the class -1, must be from 0 to 999'),
        ('[[1], [2], [3]]', 'has 3 lists, and none for .*, record 0, ILSVRC2012_val_00000004'),
        ('[[], [], [], [], [], []]', 'none of the images to evaluate has a right class'),
        ('[]', 'has 0 lists'),
    ],
)
def test_real_labels_that_are_refused(tmp_path, content, message):
    records = write_validation(tmp_path / 'data', NUMBERS)
    with pytest.raises(InputError, match=f'^--real_labels={records}/real.json: {message}') as raised:
        read_classes(records, content)
    assert '\n' not in str(raised.value)


def test_images_with_other_names_are_refused(tmp_path):
    records = write_validation(tmp_path / 'data', NUMBERS, prefix='n01440764_')
    with pytest.raises(InputError, match=r"record 0 has the file name 'n01440764_00000004.JPEG', but images must be"):
        read_classes(records, REAL)


def test_a_damaged_record_is_left_to_the_evaluation(tmp_path):
    """Which names file and record."""
    records = write_validation(tmp_path / 'data', NUMBERS)
    path = records / 'validation-00000-of-00001'
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match='record 3: corrupt: a checksum does not match'):
        read_classes(records, REAL)


def test_the_records_of_imagenet_have_names(shared_path):
    records = str(shared_path('data/imagenet_mini'))
    dataset = get_dataset('imagenet', records, 'validation')
    assert isinstance(dataset.examples, StoredExamples)
    for number in range(dataset.num_examples):
        assert dataset.examples.file_name(number).numpy().startswith(b'ILSVRC2012_val_000')


def test_targets_are_the_right_classes_of_the_highest_score():
    random = np.random.default_rng(0)
    scores = random.integers(0, 4, (200, 6)).astype(np.float32)  # with ties
    scores[:3, 2] = np.nan
    scores[3] = np.nan
    right = random.random((200, 6)) < 0.3
    right[right.sum(-1) == 0, 1] = True
    batch = ScoredBatch(np.arange(200), np.zeros(200, int), (scores,), ('logits',), right)
    targets, predictions = batch.targets(0), batch.predictions(0)
    assert right[np.arange(200), targets].all()
    np.testing.assert_array_equal(batch.are_correct(0), right[np.arange(200), predictions])
    for row, answers, rank in zip(scores, right, batch.ranks(0), strict=True):
        assert rank == (
            min((row > row[each]).sum() + 1 for each in np.flatnonzero(answers)) if np.isfinite(row).all() else 0
        )
    counts, collector = Counts((1, 3)), Collector()
    for observer in (counts, collector):
        observer.observe(batch)
    assert counts.results()['accuracy'] == collector.outcomes().correct.mean() == batch.are_correct(0).mean()
