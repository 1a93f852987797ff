"""`--fit_temperature` and `--temperature`: the fit, where it is stored, and which probabilities it changes."""

import contextlib
import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf

from configs.options import make_config
from configs.prediction import PredictConfig
from engine import checkpoints, evaluation
from engine.classifiers import load_classifier, softmax
from engine.classifiers.temperature import FILE_NAME
from engine.evaluation.calibration import KeptLogits, calibrate, fit_temperature, keep_logits
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.outcomes import Collector
from engine.prediction.predict import predict
from support.errors import InputError
from tests.runs import eval_config, saved_values
from tests.served_nets import export

SHARP = 5.0  # factor of the logits of `overconfident`


@pytest.fixture
def observed() -> Iterator[Callable[[np.ndarray, np.ndarray], tuple[KeptLogits, Collector]]]:
    """Shows logits and labels to the observers, in batches."""
    with contextlib.ExitStack() as stack:

        def observe(logits: np.ndarray, labels: np.ndarray) -> tuple[KeptLogits, Collector]:
            (kept,), collector = stack.enter_context(keep_logits()), Collector()
            for first in range(0, len(labels), 100):
                rows = slice(first, first + 100)
                scored = ScoredBatch(np.arange(len(labels))[rows], labels[rows], (logits[rows],), ('logits',))
                for observer in (kept, collector):
                    observer.observe(scored)
            return kept, collector

        yield observe


def random_logits(classes: int, scale: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits that are `scale` times too large for their labels."""
    random = np.random.RandomState(classes)
    logits = random.normal(0, 2, (count, classes))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=-1)  # drawn from softmax(logits)
    return (logits * scale).astype(np.float32), labels.astype(np.int32)


def cross_entropy(temperature: float, logits: np.ndarray, labels: np.ndarray) -> float:
    scaled = logits.astype(np.float64) / temperature
    return float(-scipy.special.log_softmax(scaled, axis=-1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize(('classes', 'scale'), [(2, 0.2), (10, 1.0), (10, 4.0), (1000, 20.0)])
def test_the_temperature_is_that_of_the_least_cross_entropy(observed, classes, scale, monkeypatch):
    monkeypatch.setattr('engine.evaluation.calibration._CHUNK', 4999)
    logits, labels = random_logits(classes, scale, 500 if classes == 1000 else 2000)
    expected = scipy.optimize.minimize_scalar(
        cross_entropy, (scale / 2, scale), args=(logits, labels), options={'xtol': 1e-9}
    ).x
    kept, collector = observed(logits, labels)
    fit = calibrate(kept, collector.outcomes())
    assert fit.temperature == pytest.approx(expected, rel=1e-4)
    assert fit.temperature == pytest.approx(scale, rel=0.1)
    assert fit.cross_entropy_before == pytest.approx(cross_entropy(1, logits, labels))
    assert fit.cross_entropy_after == pytest.approx(cross_entropy(fit.temperature, logits, labels))
    assert fit.num_examples == len(labels)
    if scale != 1:
        assert fit.ece_after < fit.ece_before


def test_large_logits_neither_overflow_nor_vanish(observed):
    logits, labels = random_logits(10, 1.0)
    for factor in (1e-1, 30):  # far from 1, within the bounds
        kept, _ = observed(logits * np.float32(factor), labels)
        assert fit_temperature(kept) == pytest.approx(factor, rel=0.1)
    kept, collector = observed(logits * np.float32(1e30), labels)  # a probability of 0: infinitely wrong at 1
    assert np.isfinite(dataclasses.astuple(calibrate(kept, collector.outcomes()))).all()


@pytest.mark.parametrize(
    ('logits', 'labels', 'temperature', 'warning'),
    [
        ([[2.0, 0.0], [0.0, 1.0]], [0, 1], 0.01, 'nearly all examples are right'),
        ([[2.0, 0.0], [0.0, 1.0]], [1, 0], 100.0, 'the scores do not depend on the labels'),
        ([[1.0, 1.0], [3.0, 3.0]], [1, 0], 1.0, ''),
        ([[2.0, 0.0]], [0], 0.01, 'nearly all examples are right'),
    ],
)
def test_no_least_value_ends_at_a_bound_with_a_warning(observed, logits, labels, temperature, warning, caplog):
    kept, _ = observed(np.array(logits, np.float32), np.array(labels, np.int32))
    assert fit_temperature(kept) == temperature
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)


def test_examples_of_unknown_labels_are_left_out(observed):
    logits, labels = random_logits(10, 2.0)
    expected = fit_temperature(observed(logits, labels)[0])
    more = np.concatenate([logits[:50], logits]), np.concatenate([np.full(50, 10, np.int32), labels])
    kept, collector = observed(*more)
    fit = calibrate(kept, collector.outcomes())
    assert fit.temperature == pytest.approx(expected)
    assert fit.num_examples == len(labels)
    kept, collector = observed(logits[:5], np.full(5, -1, np.int32))
    with pytest.raises(InputError, match='--fit_temperature: no example has a label that is a class of the net'):
        calibrate(kept, collector.outcomes())


@pytest.fixture(scope='module')
def run(trained, tmp_path_factory) -> Path:
    """A train_dir with checkpoints of steps 1 and 2, whose logits are too large; --fit_temperature for step 2."""
    folder = tmp_path_factory.mktemp('overconfident')
    shutil.copy(Path(trained.checkpoint_path).parent / 'model.json', folder)
    values = saved_values(trained.checkpoint_path)
    for step in (1, 2):
        head = {
            name: value * np.float32(SHARP + step) for name, value in values.items() if name.startswith('LeNet/fc4/')
        }
        assert head
        checkpoints.save(str(folder), step, {**values, **head, checkpoints.STEP_KEY: np.int64(step)}, max_to_keep=0)
    return folder


@pytest.fixture(scope='module')
def fitted(run):
    """The results of the evaluation that fits the temperature."""
    return evaluation.evaluate(eval_config(run, dataset_split_name='test', fit_temperature=True))


@pytest.fixture(scope='module')
def logits(run, fitted, tmp_path_factory) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the test split by the checkpoint of step 2, and labels."""
    rows = tmp_path_factory.mktemp('rows') / 'p.jsonl'
    evaluation.evaluate(eval_config(run, predictions_path=str(rows), predictions_logits=True))
    values = [json.loads(line) for line in rows.read_text().splitlines()]
    probabilities = np.array([value['probability'] for value in values])
    found = np.array([value['logits'] for value in values], np.float32), np.array([each['label'] for each in values])
    expected = softmax(found[0] / fitted['fitted_temperature']['temperature'])
    np.testing.assert_allclose(probabilities, expected[np.arange(len(values)), found[1]], rtol=1e-4)
    return found


def test_the_temperature_is_stored_and_evaluation_takes_it(run, fitted, logits, tmp_path):
    (stored,) = json.loads((run / FILE_NAME).read_text())
    assert stored == fitted['fitted_temperature']
    expected = scipy.optimize.minimize_scalar(cross_entropy, (2, 8), args=logits, options={'xtol': 1e-9}).x
    assert stored['temperature'] == pytest.approx(expected, rel=1e-4)
    assert (stored['checkpoint'], stored['step'], stored['moving_averages']) == ('model.ckpt-2', 2, False)
    assert (stored['dataset_name'], stored['dataset_split_name'], stored['num_examples']) == ('digits', 'test', 360)
    assert stored['ece_after'] < stored['ece_before']
    path = tmp_path / 'r.json'
    results = evaluation.evaluate(eval_config(run, results_path=str(path)))
    assert json.loads(path.read_text())['temperature'] == results['temperature'] == stored['temperature']
    for name in ('ece', 'cross_entropy'):
        assert fitted[name] == pytest.approx(stored[f'{name}_before'], rel=1e-5)
        assert results[name] == pytest.approx(stored[f'{name}_after'], rel=1e-5)
    assert (fitted['temperature'], fitted['accuracy'], fitted['loss']) == (1, results['accuracy'], results['loss'])
    raw = evaluation.evaluate(eval_config(run, temperature=1.0))
    assert (raw['temperature'], raw['ece'], raw['cross_entropy']) == (1, fitted['ece'], fitted['cross_entropy'])
    both = evaluation.compare(eval_config('', compare=(str(run), str(run / 'model.ckpt-1'))))
    assert [each['temperature'] for each in both] == [stored['temperature'], 1]
    assert both[0]['ece'] == results['ece']


def test_other_weights_have_no_temperature(run, fitted, trained, tmp_path, caplog):
    """Another step, the averages, and another run's checkpoint of the same name."""
    caplog.set_level('INFO', 'absl')
    assert load_classifier(str(run)).interface.temperature == fitted['fitted_temperature']['temperature']
    assert 'model.ckpt-2 are calibrated with temperature' in caplog.text
    for path, averages in ((run / 'model.ckpt-1', False), (run, True)):
        caplog.clear()
        assert load_classifier(str(path), averages=averages).interface.temperature == 1
        assert f'{FILE_NAME} has no temperature for these weights' in caplog.text
        assert '(it has those of model.ckpt-2)' in caplog.text
    shutil.copy(run / FILE_NAME, tmp_path)
    shutil.copy(run / 'model.json', tmp_path)
    values = {**saved_values(trained.checkpoint_path), checkpoints.STEP_KEY: np.int64(2)}
    prefix = checkpoints.save(str(tmp_path), 2, values, max_to_keep=0)
    assert load_classifier(prefix).interface.temperature == 1
    # Each has one of its own, until its checkpoint is deleted.
    for options in ({}, {'moving_average_decay': 0.9}, {}):
        evaluation.evaluate(eval_config(tmp_path, fit_temperature=True, **options))
    stored = json.loads((tmp_path / FILE_NAME).read_text())
    assert [each['moving_averages'] for each in stored] == [True, False]
    assert load_classifier(prefix, averages=True).interface.temperature == stored[0]['temperature']
    assert load_classifier(prefix).interface.temperature == stored[1]['temperature']
    checkpoints.save(str(tmp_path), 3, values, max_to_keep=1)
    evaluation.evaluate(eval_config(tmp_path, fit_temperature=True))
    assert [each['checkpoint'] for each in json.loads((tmp_path / FILE_NAME).read_text())] == ['model.ckpt-3']


def predicted(path: Path | str, image: Path, **options: Any) -> float:
    """Returns the probability of the most likely class, as the script writes it."""
    output = image.with_suffix('.csv')
    config = make_config(
        PredictConfig, images=(str(image),), checkpoint_path=str(path), format='csv', output_path=str(output), **options
    )
    assert predict(config) == 0
    with output.open(newline='') as file:
        return float(next(csv.DictReader(file))['probability'])


def test_prediction_takes_it(run, fitted, tmp_path):
    image = tmp_path / 'image.png'
    pixels = np.random.RandomState(1).randint(0, 255, (8, 8, 1)).astype(np.uint8)
    image.write_bytes(tf.io.encode_png(pixels).numpy())
    temperature = fitted['fitted_temperature']['temperature']
    raw, calibrated = predicted(run, image, temperature=1.0), predicted(run, image)
    assert calibrated < raw
    assert predicted(run, image, temperature=temperature) == calibrated
    file = export(run, tmp_path / 'net.onnx')  # logits, and beside them the temperature
    assert predicted(file, image) == pytest.approx(calibrated, rel=1e-4)
    assert predicted(file, image, temperature=1.0) == pytest.approx(raw, rel=1e-4)


EXPORTS: dict[str, tuple[str, dict[str, Any], float]] = {
    'saved_model': ('net', {'format': 'saved_model'}, 1e-5),
    'saved_model_encoded': ('net', {'format': 'saved_model', 'encoded_input': True}, 1e-5),
    'tflite': ('net.tflite', {}, 1e-5),
    'tflite_int8': ('net.tflite', {'quantize': 'int8'}, 0.1),
    'onnx': ('net.onnx', {}, 1e-5),
    'onnx_float16': ('net.onnx', {'quantize': 'float16'}, 0.01),
    'onnx_int8': ('net.onnx', {'quantize': 'int8'}, 0.1),
    'onnx_qdq': ('net.onnx', {'quantize': 'qdq'}, 0.1),
}


@pytest.mark.quick('saved_model', 'onnx')
@pytest.mark.parametrize('name', EXPORTS)
def test_exports_of_probabilities_include_it(name, run, fitted, logits, tmp_path):
    file, options, tolerance = EXPORTS[name]
    path = export(run, tmp_path / file, output='probabilities', **options)
    temperature = fitted['fitted_temperature']['temperature']
    description = json.loads(Path(f'{path}.json').read_text())
    assert description['interface']['temperature'] == temperature
    rows = tmp_path / 'p.jsonl'
    config = eval_config(path, predictions_path=str(rows), predictions_logits=True, dataset_split_name='test')
    results = evaluation.evaluate(config)
    assert results['temperature'] == temperature
    found = np.array([json.loads(line)['logits'] for line in rows.read_text().splitlines()])  # the file's own scores
    np.testing.assert_allclose(found, softmax(logits[0] / temperature), atol=tolerance)
    with pytest.raises(InputError, match=f'--temperature=2: {path} gives probabilities, not logits; leave it out'):
        load_classifier(str(path), temperature=2.0)


def test_exports_of_logits_stay_raw_and_say_it(run, fitted, logits, tmp_path):
    path = export(run, tmp_path / 'net.onnx')
    config = eval_config(path, dataset_split_name='test')
    results, of_checkpoint = evaluation.evaluate(config), evaluation.evaluate(eval_config(run))
    for value in ('loss', 'ece', 'cross_entropy', 'temperature'):
        assert results[value] == pytest.approx(of_checkpoint[value], rel=1e-4)
    raw = export(run, tmp_path / 'raw.onnx', output='probabilities', temperature=1.0)
    assert load_classifier(str(raw)).interface.temperature == 1
    weights = export(run, tmp_path / 'weights')  # alone have none
    assert load_classifier(str(weights)).interface.temperature == 1


def test_what_is_refused(run, tmp_path):
    file = export(run, tmp_path / 'net.onnx')
    shutil.copy(run / 'model.json', tmp_path)
    values = saved_values(checkpoints.find_checkpoint(str(run)))
    prefix = checkpoints.save(str(tmp_path), 2, values, max_to_keep=0)
    (tmp_path / FILE_NAME).write_text('[{"temperature": 0}]')
    for call in (
        lambda: load_classifier(prefix),
        lambda: evaluation.evaluate(eval_config(prefix, fit_temperature=True)),
    ):
        with pytest.raises(InputError, match=f'{tmp_path}/{FILE_NAME}: damaged, or written by another version'):
            call()
    assert load_classifier(prefix, temperature=3.0).interface.temperature == 3
    (tmp_path / FILE_NAME).unlink()
    broken = {name: np.full_like(value, np.nan) if 'fc4' in name else value for name, value in values.items()}
    checkpoints.save(str(tmp_path), 2, broken, max_to_keep=0)
    rows = tmp_path / 'p.csv'
    with pytest.raises(InputError, match='--fit_temperature: 360 of 360 examples have scores that are not finite'):
        evaluation.evaluate(eval_config(prefix, fit_temperature=True, predictions_path=str(rows)))
    assert not rows.exists()
    with pytest.raises(InputError, match=f'--fit_temperature: {file} is an exported file; fit the temperature of its'):
        evaluation.evaluate(eval_config(file, fit_temperature=True))
    with pytest.raises(InputError, match='--fit_temperature: takes the logits of one view and of all classes'):
        evaluation.evaluate(eval_config(prefix, fit_temperature=True, eval_crops=5))
    with pytest.raises(InputError, match='--fit_temperature=True: --compare evaluates each file once'):
        evaluation.compare(eval_config('', compare=(str(file),), fit_temperature=True))
    with pytest.raises(InputError, match=r'--temperature=0\.0: must be at least 0.01'):
        eval_config(run, temperature=0.0)
    with pytest.raises(InputError, match=r'--temperature=2\.0: --format=keras does not support it'):
        export(run, tmp_path / 'net.keras', temperature=2.0)
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(InputError, match=f'--fit_temperature={tmp_path}/{FILE_NAME}: cannot write a file there'):
        evaluation.evaluate(eval_config(prefix, fit_temperature=True))
