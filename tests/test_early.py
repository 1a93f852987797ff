"""What scripts refuse before TensorFlow is imported: here, importing it fails."""

import os
from pathlib import Path

import pytest

from configs import early, names
from datasets.dataset_factory import DATASETS
from engine.optim.optimizers import OPTIMIZERS
from engine.optim.schedules import SCHEDULES
from export.export_factory import FORMATS
from nets.nets_factory import NETS
from preprocessing.preprocessing_factory import PREPROCESSINGS
from support.errors import InputError
from tests.scripts import SCRIPTS, run_python

# flags, message; {here} is an empty folder
REFUSED: dict[str, list[tuple[str, str]]] = {
    'train_image_classifier.py': [
        ('--model_name=alexnet_v3', "unknown net 'alexnet_v3' (did you mean 'alexnet_v2'?)"),
        ('--preprocessing_name=incepton', "unknown preprocessing 'incepton'"),
        ('--dataset_name=imagenett', "unknown dataset_name 'imagenett'"),
        ('--optimizer=adm', "unknown optimizer 'adm'"),
        ('--learning_rate_decay_type=cos', "unknown learning_rate_decay_type 'cos'"),
        ('--dataset_dir={here}/none', '--dataset_dir={here}/none: no such folder'),
        ('--checkpoint_path={here}', '--checkpoint_path={here}: no checkpoint in this folder'),
        ('--batch_size=0', '--batch_size=0: must be at least 1'),
        (
            '--learning_rate_decay_type=cosine --dataset_dir={here}',
            'cosine needs the length of training: give',
        ),
        ('--learning_rate_decay_type=piecewise', '--learning_rate_decay_type=piecewise needs --learning_rate_boundari'),
        ('--best_metric=f1', '--best_metric=f1: must be one of accuracy, recall_at_5, none'),
        ('--train_dir={here}/file', '--train_dir={here}/file: not a folder; choose another path'),
        (
            '--preprocessing_name=whole --use_bounding_boxes',
            '--use_bounding_boxes has no effect with --preprocessing_name=whole; only inception uses it; leave it out',
        ),
        (
            '--model_name=lenet --global_pool',
            '--global_pool has no effect with --model_name=lenet; only alexnet_v2, inception_v1',
        ),
        ('--early_stopping_patience=2 --dataset_dir={here}', 'has no effect without --eval_every_epochs or --eval_ev'),
        ('--train_dir=~no.such/x', "--train_dir=~no.such/x: this machine has no user 'no.such'"),
    ],
    'eval_image_classifier.py': [
        ('--checkpoint_path={here}/run/model', ': no such file; its folder {here}/run does not exist'),
        ('--checkpoint_path={here}/model.ckpt-7', ': no such checkpoint; {here} holds none'),
        (
            '--checkpoint_path={here}/file --results_path={here}/none/x',
            '--results_path={here}/none/x: folder {here}/none does not exist',
        ),
        (
            '--checkpoint_path={here}/file --eval_dir={here}/file/x/y',
            '--eval_dir={here}/file/x/y: {here}/file is not a fo',
        ),
        ('--checkpoint_path={here}/file --report_dir=', '--report_dir: name a folder, or leave the flag out'),
        (
            '--checkpoint_path={here}/file --report_dir={here}/new --predictions_path={here}/new/../new/per_class.csv',
            'per_class.csv: is also a file of the report; give another name',
        ),
        (
            '--checkpoint_path={here}/file --results_path={here}/a.jsonl --predictions_path={here}/a.jsonl',
            '--predictions_path={here}/a.jsonl: is also --results_path; give another name',
        ),
        ('--compare={here}/file,{here}/x,{here}/file', '{here}/file: names {here}/file more than once'),
        ('--compare={here}/a.onnx,{here}/b.onnx', '--compare={here}/a.onnx: no such checkpoint'),
        (
            '--checkpoint_path={here}/file --class_map=name',
            '--class_map=name: no such file, and none of names, numbers',
        ),
        ('--checkpoint_path={here}/file --real_labels={here}/none', '--real_labels={here}/none: no such file'),
    ],
    'predict_image_classifier.py': [
        ('x.jpg --checkpoint_path={here}/b/model.ckpt-3', 'no such file; its folder {here}/b does not exist'),
        ('x.jpg --checkpoint_path={here}/net.tflite', 'no such checkpoint'),
        ('x --checkpoint_path={here}/file --labels_path={here}/none', '--labels_path={here}/none: no such file'),
        (
            'x --checkpoint_path={here}/file --output_path={here}/none/y',
            '--output_path={here}/none/y: folder {here}/none does not exist',
        ),
        ('x --checkpoint_path={here}/file --visualize={here}', '--visualize={here}: cannot write a file there'),
    ],
    'export_image_classifier.py': [
        (
            '--checkpoint_path={here}/file --output_path={here}/file',
            '--output_path={here}/file already exists; choose another',
        ),
        (
            '--checkpoint_path={here}/file --format=onnx --verification_images={here}/none',
            '--verification_images={here}/none: no such file',
        ),
        (
            '--format=keras --quantize=int8',
            '--quantize=int8 has no effect with --format=keras; only tflite and onnx use',
        ),
        ('--format=tflit', "unknown format 'tflit' (did you mean 'tflite'?)"),
        ('--checkpoint_path={here}', 'no checkpoint in this folder'),
        ('--format=slim --output_path={here}/x.onnx', ': --format=slim writes a folder, but names that end in .onnx'),
        ('--output_path={here}/x.pb', '--output_path={here}/x.pb: no format uses this ending'),
        ('--batch_size=0', '--batch_size=0: must be at least 1'),
        ('--opset=22', '--opset=22: must be at most 21'),
    ],
    'import_weights.py': [
        ('--source={here}/net.onnx', '--source={here}/net.onnx: no such file'),
        ('--source={here}/file --labels_path={here}/none', '--labels_path={here}/none: no such file'),
        ('--source={here}/file --dataset_dir={here}/none', '--dataset_dir={here}/none: no such folder'),
    ],
    'download_and_convert_data.py': [
        ('--dataset_name=imagenett', "unknown dataset_name 'imagenett'"),
        (
            '--dataset_name=imagenet --dataset_dir={here}/out --source_dir={here}/none',
            '--source_dir={here}/none: no',
        ),
    ],
    'benchmark_image_classifier.py': [
        ('--dataset_name=imagenet --dataset_dir={here}/none', 'no such folder'),
        ('--results_path={here}/none/x', '--results_path={here}/none/x: folder {here}/none does not exist'),
        ('--summary', '--summary: only train_image_classifier.py supports it; leave it out'),
    ],
}


@pytest.fixture(scope='module')
def without_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which TensorFlow and Keras cannot be imported."""
    folder = tmp_path_factory.mktemp('refusing')
    for package in ('tensorflow', 'keras'):
        (folder / f'{package}.py').write_text(f'raise AssertionError("{package} was imported")\n')
    return {'PYTHONPATH': str(folder)}


def test_every_script_has_refusals() -> None:
    assert set(REFUSED) == set(SCRIPTS)


@pytest.mark.parametrize(('script', 'flags', 'message'), [(s, *row) for s, rows in REFUSED.items() for row in rows])
def test_refused_without_tensorflow(
    script: str, flags: str, message: str, tmp_path: Path, without_tensorflow: dict[str, str]
) -> None:
    (tmp_path / 'file').touch()
    finished = run_python(script, *flags.format(here=tmp_path).split(), **without_tensorflow)
    assert finished.returncode == 1, finished.stderr
    assert finished.stderr.startswith('error: ')
    assert finished.stderr.count('\n') == 1
    assert message.format(here=tmp_path) in finished.stderr


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early.check_folder_place('eval_dir', str(tmp_path / 'new' / 'one'))
    monkeypatch.setattr(os, 'access', lambda path, mode: path != str(tmp_path))  # for root may write anywhere
    with pytest.raises(InputError, match=f'^--eval_dir={tmp_path}/new/one: {tmp_path} is not writable$'):
        early.check_folder_place('eval_dir', str(tmp_path / 'new' / 'one'))


def _passes(script: str, flags: str, environment: dict[str, str]) -> bool:
    """Returns whether a script comes to import TensorFlow, or with --plan to what that needs."""
    finished = run_python(script, *flags.split(), **environment)
    return any(words in finished.stderr for words in ('was imported', '--plan needs'))


# Script and flags, of which nothing may be refused before TensorFlow looks at them; {here} has a checkpoint's index.
@pytest.mark.parametrize(
    ('script', 'flags'),
    [
        ('train', '--plan --plan_examples=1000 --dataset_dir={here}/none --checkpoint_path={here}/none'),
        ('train', '--plan --worker_hosts=a:1,b:1'),
        ('train', '--model_name=alexnet_v3 --worker_hosts=localhost:1,localhost:2 --task=1'),
        ('train', '--dataset_dir={here}/none --worker_hosts=localhost:1,localhost:2 --task=1'),
        ('train', '--dataset_name=digits --dataset_dir={here}/none'),
        ('train', '--dataset_name=tfds:mnist --dataset_dir={here}/none'),
        ('train', '--dataset_dir=gs://bucket/data --checkpoint_path=gs://bucket/model.ckpt-1'),
        ('train', '--train_dir={here} --checkpoint_path={here}/none'),
        ('train', '--train_dir=gs://bucket/run --checkpoint_path={here}/none'),
        ('train', '--checkpoint_path={here}/model.ckpt-7'),
        ('train', '--checkpoint_path={here}/model.ckpt-7.data-00000-of-00001'),
        ('eval', '--checkpoint_path={here}'),
        ('eval', '--checkpoint_path={here} --dataset_dir={here}/none'),
        ('eval', '--checkpoint_path={here}/none --eval_interval_secs=1'),
        ('eval', '--compare={here}/model.ckpt-7,{here}'),
        ('predict', '--checkpoint_path={here}/model.ckpt-7.index none.jpg'),
    ],
)
def test_what_is_left_to_tensorflow(
    script: str, flags: str, tmp_path: Path, without_tensorflow: dict[str, str]
) -> None:
    (tmp_path / 'model.ckpt-7.index').touch()
    assert _passes(f'{script}_image_classifier.py', flags.format(here=tmp_path), without_tensorflow)


def test_the_launcher_does_not_ask_who_it_is_itself(without_tensorflow: dict[str, str]) -> None:
    environment = {**without_tensorflow, 'RANK': '0'}  # without WORLD_SIZE
    flags = '--dataset_name=digits --launch_workers=2'
    assert _passes('train_image_classifier.py', flags, environment)


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_needs_no_tensorflow(script: str, without_tensorflow: dict[str, str]) -> None:
    finished = run_python(script, '--help', **without_tensorflow)
    assert 'AssertionError' not in finished.stderr
    assert '--[no]' in finished.stdout


@pytest.mark.parametrize(
    ('early', 'table'),
    [
        (names.NETS, NETS),
        (names.PREPROCESSINGS, PREPROCESSINGS),
        (names.OPTIMIZERS, OPTIMIZERS),
        (names.SCHEDULES, SCHEDULES),
        (names.EXPORT_FORMATS, FORMATS),
        (names.DATASETS, {**DATASETS, 'image_folder': 0, 'synthetic': 0, 'tfds:<name>': 0}),
    ],
)
def test_names_are_those_of_the_factories(early: tuple[str, ...], table: dict[str, object]) -> None:
    assert sorted(early) == sorted(table)


def test_any_name_of_tfds_passes() -> None:
    names.check_name('dataset_name', 'tfds:oxford_iiit_pet')
    with pytest.raises(InputError, match='tfds:<name>'):
        names.check_name('dataset_name', 'tfd:oxford_iiit_pet')
