"""One bad image need not end a training: what is saved before it does, and what `--on_bad_image=skip` takes instead."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from configs.options import make_config
from configs.training import TrainConfig
from datasets import tfrecord
from datasets.bad_images import MOST_IN_A_ROW, SkippedImages
from datasets.dataset_factory import get_dataset
from datasets.decoded import with_cache
from datasets.input_pipeline import training_batches
from datasets.order import ONE_WORKER, Worker, make_order
from engine import checkpoints, training
from engine.training.state import Position
from preprocessing.preprocessing_factory import get_preprocessing
from support.errors import InputError
from tests.runs import assert_same_values, saved_values, small_config

COUNT, BATCH, SEED = 40, 4, 3
BAD = (7, 8, 23)


def _encoded(number: int) -> bytes:
    if number == 7:
        return b'no image'
    if number == 23:
        return tf.io.encode_jpeg(tf.zeros([16, 12, 3], tf.uint8)).numpy()[:-60]
    image = np.zeros((16, 12, 3), np.uint8)
    image[:, :, 0] = number
    image[number % 8 : number % 8 + 4, 3:9] = 255
    png = tf.io.encode_png(image).numpy()
    return png[:-40] if number == 8 else png


def _record(number: int) -> tf.train.Example:
    return tfrecord.image_example(_encoded(number), 'jpg', 16, 12, number % 3)


@pytest.fixture(scope='module')
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('records')
    (folder / 'labels.txt').write_text('0:a\n1:b\n2:c\n')
    for shard in range(2):
        numbers = range(shard * COUNT // 2, (shard + 1) * COUNT // 2)
        name = f'flowers_train_{shard:05}-of-00002.tfrecord'
        tfrecord.write_records(str(folder / name), map(_record, numbers))
    return folder


RUN = {
    'dataset_name': 'flowers',
    'train_image_size': 12,
    'batch_size': BATCH,
    'seed': SEED,
    'cache': 'off',
    'on_bad_image': 'skip',
    'max_number_of_steps': 24,
}


def _train(records: Path, train_dir: Path, **options: Any) -> str:
    return training.train(small_config(records, train_dir, **{**RUN, **options})).checkpoint_path


@pytest.fixture(scope='module')
def past(records: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The end of a run past the bad images."""
    return _train(records, tmp_path_factory.mktemp('past') / 'run')


# ------------------------------------------------------------------------ the stream


def _reds(examples: Any, batches: int, worker: Worker = ONE_WORKER) -> tuple[list[int], dict[int, int]]:
    """Which images come, by their red, and what was noted."""
    skipped = SkippedImages()
    preprocessing = get_preprocessing('lenet', 12)
    taken = training_batches(examples, preprocessing, BATCH, SEED, 0, worker=worker, skipped=skipped).take(batches)
    reds = np.concatenate([batch['image'].numpy()[:, 0, 0, 0] for batch in taken]).tolist()
    return reds, skipped.take(2**60)


@pytest.mark.quick('off')
@pytest.mark.parametrize('cache', ['off', 'memory'])
def test_the_next_of_the_order_takes_the_place(records: Path, cache: str) -> None:
    dataset = with_cache(get_dataset('flowers', str(records), 'train'), cache, 3, 9.0, keeps_bad=True)
    order = make_order(COUNT, 2, SEED, ONE_WORKER, BATCH)
    at = order.numbers(tf.range(3 * COUNT, dtype=tf.int64)).numpy().tolist()

    def usable(position: int) -> int:
        return next(number for number in at[position:] if number not in BAD)

    reds, noted = _reds(dataset, COUNT // 2)
    expected = [usable(position) for position in range(2 * COUNT)]
    assert reds == expected
    passed = {position: number for position, number in noted.items() if position < 2 * COUNT}
    assert passed == {position: at[position] for position in range(2 * COUNT) if at[position] in BAD}


@pytest.mark.full
def test_workers_with_files_of_their_own_stay_with_them(records: Path) -> None:
    dataset = get_dataset('flowers', str(records), 'train')
    for index in range(2):
        worker = Worker(index, 2)
        order = make_order(COUNT, 2, SEED, worker, BATCH)
        positions = order.positions(tf.constant(0, tf.int64), COUNT)
        at = order.numbers(positions).numpy().tolist()
        reds, noted = _reds(dataset, 4, worker)
        expected = [next(number for number in at[place:] if number not in BAD) for place in range(16)]
        assert reds == expected
        assert set(noted.values()) <= set(BAD)


@pytest.mark.full
def test_taking_forgets(records: Path) -> None:
    skipped = SkippedImages()
    dataset, preprocessing = get_dataset('flowers', str(records), 'train'), get_preprocessing('lenet', 12)
    list(training_batches(dataset, preprocessing, BATCH, SEED, 0, skipped=skipped).take(COUNT // BATCH))
    first = skipped.take(COUNT // 2)
    assert all(position < COUNT // 2 for position in first)
    assert not skipped.take(COUNT // 2)
    assert sorted({*first.values(), *skipped.take(COUNT).values()}) == list(BAD)


@pytest.mark.full
def test_too_many_in_a_row_are_named(tmp_path: Path) -> None:
    bad = tfrecord.image_example(b'no image', 'jpg', 16, 12, 0)
    tfrecord.write_records(str(tmp_path / 'flowers_train_00000-of-00001.tfrecord'), [bad] * 9)
    (tmp_path / 'labels.txt').write_text('0:a\n1:b\n2:c\n')
    with pytest.raises(InputError) as raised:
        _train(tmp_path, tmp_path / 'run')
    assert 'its image cannot be prepared: Unknown image file format' in str(raised.value)
    assert f'nor can any of the {MOST_IN_A_ROW - 1} examples that follow it' in str(raised.value)


# ------------------------------------------------------------------------ training past them


@pytest.mark.full
@pytest.mark.parametrize('cache', ['memory', 'folder'])
def test_the_same_bits_with_a_cache(
    records: Path, past: str, tmp_path: Path, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger='absl'):
        assert_same_values(
            _train(records, tmp_path / 'run', cache='memory' if cache == 'memory' else str(tmp_path / 'cache')), past
        )
    assert '3 of them cannot be decoded' in caplog.text
    named = [record.getMessage() for record in caplog.records if record.getMessage().startswith('skipped (')]
    assert [line[: len('skipped (1 of at most 100)')] for line in named] == [
        f'skipped ({count} of at most 100)' for count in (1, 2, 3)
    ]
    lines = sorted(line.partition(': ')[2].partition(': its image cannot be prepared: ')[0] for line in named)
    shards = f'{records}/flowers_train_0000'
    assert lines == [
        f'{shards}{place}'
        for place in ('0-of-00002.tfrecord, record 7', '0-of-00002.tfrecord, record 8', '1-of-00002.tfrecord, record 3')
    ]  # each once in two epochs and a half


@pytest.mark.full
def test_a_run_that_goes_on_passes_over_the_same(records: Path, past: str, tmp_path: Path) -> None:
    for steps in (5, 24):
        last = _train(records, tmp_path / 'run', max_number_of_steps=steps)
    assert_same_values(last, past)


@pytest.mark.full
def test_two_replicas_take_the_same(records: Path, past: str, tmp_path: Path) -> None:
    expected = saved_values(past)
    for name, value in saved_values(_train(records, tmp_path / 'run', num_clones=2)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_more_than_max_bad_images_stop(records: Path, tmp_path: Path) -> None:
    message = '--max_bad_images=1: more images were skipped, [23], all named above; repair or remove them, or raise'
    with pytest.raises(InputError, match=message):
        _train(records, tmp_path / 'run', max_bad_images=1)
    assert tf.train.latest_checkpoint(str(tmp_path / 'run')) is not None


@pytest.mark.full
def test_a_cache_that_lacks_images_is_not_enough_to_stop_at_none(records: Path, tmp_path: Path) -> None:
    dataset = get_dataset('flowers', str(records), 'train')
    with_cache(dataset, str(tmp_path / 'cache'), 3, 9.0, keeps_bad=True)
    with pytest.raises(InputError, match=r'record 7: its image cannot be decoded'):
        with_cache(dataset, str(tmp_path / 'cache'), 3, 9.0)


def test_a_service_tells_nothing() -> None:
    with pytest.raises(InputError, match='--on_bad_image=skip cannot be combined with --data_service'):
        make_config(TrainConfig, on_bad_image='skip', data_service='grpc://here:5050')


# ------------------------------------------------------------------------ stopping at them


def _steps_before_a_bad_image(records: Path) -> int:
    order = make_order(COUNT, 2, SEED, ONE_WORKER, BATCH)
    numbers = order.numbers(tf.range(COUNT, dtype=tf.int64)).numpy().tolist()
    return min(numbers.index(number) for number in BAD) // BATCH


def test_what_was_trained_is_saved(records: Path, past: str, tmp_path: Path) -> None:
    steps = _steps_before_a_bad_image(records)
    assert steps > 0
    run = tmp_path / 'run'
    message = 'its image cannot be prepared: .*; to skip such images, give --on_bad_image=skip'
    for _ in range(2):  # the same command stops there again
        with pytest.raises(InputError, match=message):
            _train(records, run, on_bad_image='stop')
        latest = tf.train.latest_checkpoint(str(run))
        assert Position.load(checkpoints.Checkpoint(latest), BATCH) == Position(step=steps, images_seen=steps * BATCH)
        assert sorted(name for name in os.listdir(run) if name.endswith('.index')) == [f'model.ckpt-{steps}.index']
    assert_same_values(latest, _train(records, tmp_path / 'short', max_number_of_steps=steps))
    assert_same_values(_train(records, run), past)  # and with skip it goes on past it


def test_a_bad_image_in_the_first_batch_saves_nothing(records: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'its image cannot be prepared: .*; make this file again$'):
        _train(records, tmp_path / 'run', on_bad_image='stop', batch_size=COUNT)
    assert tf.train.latest_checkpoint(str(tmp_path / 'run')) is None


@pytest.mark.full
def test_a_bad_image_to_evaluate_loses_nothing(records: Path, tmp_path: Path) -> None:
    options = {'eval_every_steps': 5, 'eval_split_name': 'train', 'save_interval_steps': 100}
    with pytest.raises(InputError, match='record 7: its image cannot be prepared'):
        _train(records, tmp_path / 'run', **options)
    latest = tf.train.latest_checkpoint(str(tmp_path / 'run'))
    assert Position.load(checkpoints.Checkpoint(latest), BATCH).step == 5
