"""What keeps a run from loss, without processes of its own: recovery, the best checkpoint, rotation, saving."""

import dataclasses
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.options import flat_values, from_flagfile, make_config, to_flagfile
from configs.training import TrainConfig
from engine import checkpoints, evaluation, training
from engine.checkpoints import files as checkpoint_files
from engine.distributed.kernels import describe_kernels
from engine.training import actions
from engine.training import evaluation as training_evaluation
from engine.training.best_checkpoint import EvaluationHistory
from engine.training.recovery import NonFiniteError, Recovery
from engine.training.setup import Run
from engine.training.state import Position
from support.errors import InputError
from tests.runs import assert_same_values, eval_config, saved_values, steps_in_tensorboard
from tests.runs import files as files_of

# ------------------------------------------------------------------------ values that are not finite


class KilledError(Exception):
    """Ends a run at once, as a kill does."""


@pytest.fixture
def spoil(monkeypatch) -> Callable[..., None]:
    """A function that makes examples of the training stream give a loss that is not finite, and spoil the weights."""
    make_steps = Run.make_steps

    def spoil(*bad: int, killed_at: tuple[int, ...] = ()) -> None:
        to_come = set(killed_at)

        def make_spoiled(run, end):
            run_steps = make_steps(run, end)

            def run_spoiled(iterator, position, num_steps):
                reached = {step for step in to_come if step <= position.step + num_steps}
                if reached:
                    to_come.difference_update(reached)
                    raise KilledError
                report = run_steps(iterator, position, num_steps)
                for image in bad:
                    step = (image - position.stream) // run.config.data.batch_size
                    if 0 <= step < num_steps:
                        report.cross_entropy.setflags(write=True)
                        report.cross_entropy[step:] = np.nan
                        for variable in run.state.variables.values():
                            variable.assign(tf.fill(variable.shape, np.nan))
                return report

            return run_spoiled

        monkeypatch.setattr(Run, 'make_steps', make_spoiled)

    return spoil


EVERY_TEN = {'max_number_of_steps': 60, 'save_interval_steps': 10, 'batch_size': 16}


def test_recovery_skips_the_batches_since_the_last_checkpoint(train_digits, tmp_path, spoil, caplog):
    spoil(33 * 16 + 3)
    result = train_digits(tmp_path / 'run', recover_from_nonfinite=1, **EVERY_TEN)
    assert 'is not finite at step 34: returning to step 30 and skipping the 64 images since then (recovery 1 of 1)' in (
        caplog.text
    )
    values = saved_values(result.checkpoint_path)
    kept = {
        name: int(values[name]) for name in ('global_step', 'images_seen', 'images_skipped', 'nonfinite_recoveries')
    }
    assert kept == {
        'global_step': 60,
        'images_seen': 960,
        'images_skipped': 64,
        'nonfinite_recoveries': 1,
    }
    assert all(np.isfinite(value).all() for value in values.values())


@pytest.mark.full
def test_a_run_killed_after_a_recovery_ends_the_same(train_digits, tmp_path, spoil):
    spoil(33 * 16, 52 * 16)
    whole = train_digits(tmp_path / 'whole', recover_from_nonfinite=2, **EVERY_TEN)
    spoil(33 * 16, 52 * 16, killed_at=(25, 35, 45))
    for _ in range(3):
        with pytest.raises(KilledError):
            train_digits(tmp_path / 'parts', recover_from_nonfinite=2, **EVERY_TEN)
    parts = train_digits(tmp_path / 'parts', recover_from_nonfinite=2, **EVERY_TEN)
    assert_same_values(parts.checkpoint_path, whole.checkpoint_path)


def test_recovery_begins_anew_without_a_checkpoint(train_digits, tmp_path, spoil, caplog):
    spoil(3 * 16)
    train_digits(tmp_path, recover_from_nonfinite=1, **EVERY_TEN)
    assert 'returning to step 0 and skipping the 64 images since' in caplog.text


def test_recovery_has_an_end(train_digits, tmp_path, spoil):
    spoil(33 * 16, 45 * 16)
    with pytest.raises(InputError) as error:
        train_digits(tmp_path, recover_from_nonfinite=1, **EVERY_TEN)
    assert 'the loss (nan) is not finite at step 42; the last good checkpoint is' in str(error.value)
    assert 'at most N times (so far 1)' in str(error.value)
    assert checkpoints.checkpoint_step(checkpoints.find_checkpoint(str(tmp_path))) == 40


def test_the_failure_of_a_save_comes_before_that_of_the_loss(tmp_path):
    earlier, later = (NonFiniteError(name, Position(step, step * 16)) for name, step in (('weights', 10), ('loss', 11)))

    def fail(values):
        time.sleep(0.2)
        raise earlier

    with checkpoints.Saver(str(tmp_path), 5) as saver:
        saver.save(10, {'a': np.float32(1)}, fail)
        recovery = Recovery(1, saver, str(tmp_path), lambda: Position(5, 80))
        assert recovery(later, 0) == Position(5, 80, images_skipped=80, recoveries=1)


# ------------------------------------------------------------------------ the best checkpoint, and giving up

CHECKED = {'eval_every_steps': 10, 'max_number_of_steps': 60}


@pytest.fixture(scope='module')
def checked(train_digits, tmp_path_factory) -> training.TrainResult:
    """A run with six evaluations, of which the best is not the last."""
    train_dir = tmp_path_factory.mktemp('checked')
    return train_digits(train_dir, save_interval_steps=10, learning_rate=0.1, seed=3, **CHECKED)


def history_of(result: training.TrainResult) -> list[dict]:
    return json.loads(Path(result.checkpoint_path).with_name('evaluations.json').read_text())


def test_the_best_checkpoint_is_kept(checked):
    history = history_of(checked)
    assert [row['step'] for row in history] == [10, 20, 30, 40, 50, 60]
    assert set(history[0]) == {'step', 'accuracy', 'recall_at_5', 'loss', 'num_examples', 'split', 'averages'}
    best_step = max(history, key=lambda row: row['accuracy'])['step']
    best_dir = Path(checked.checkpoint_path).parent / 'best'
    assert [path.name for path in best_dir.glob('*.index')] == [f'model.ckpt-{best_step}.index']
    # Of the rotated ones, the last five are left; the best one is the same where it is among them.
    if best_step > 10:
        assert_same_values(f'{best_dir}/model.ckpt-{best_step}', f'{best_dir.parent}/model.ckpt-{best_step}')


def test_the_best_checkpoint_evaluates_to_what_was_measured(checked, digits_dir):
    best_dir = Path(checked.checkpoint_path).parent / 'best'
    results = evaluation.evaluate(eval_config(best_dir, dataset_dir=str(digits_dir)))
    assert results['accuracy'] == max(row['accuracy'] for row in history_of(checked))


@pytest.mark.full
def test_no_best_checkpoint_on_request(train_digits, tmp_path):
    train_digits(tmp_path, eval_every_steps=5, max_number_of_steps=5, best_metric='none')
    assert not (tmp_path / 'best').exists()
    assert (tmp_path / 'evaluations.json').exists()


def test_training_gives_up(train_digits, tmp_path, caplog):
    options = {'eval_every_steps': 5, 'max_number_of_steps': 1000, 'early_stopping_patience': 2, 'learning_rate': 1e-9}
    with caplog.at_level(logging.INFO, logger='absl'):
        result = train_digits(tmp_path, **options)
    assert result.step == 15
    assert checkpoints.checkpoint_step(result.checkpoint_path) == 15
    assert 'accuracy has not improved since step 5, for 2 evaluations' in caplog.text
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob('*.index')}
    assert train_digits(tmp_path, **options).step == 15
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob('*.index')} == before
    assert train_digits(tmp_path, **{**options, 'early_stopping_patience': 3}).step == 20


def measured(*accuracies: float) -> EvaluationHistory:
    rows = tuple({'step': 10 * i, 'accuracy': value} for i, value in enumerate(accuracies, start=1))
    return EvaluationHistory({'metric': 'accuracy'}, rows)


@pytest.mark.parametrize(
    ('history', 'best_step', 'since'),
    [
        (measured(), None, 0),
        (measured(0.5), 10, 0),
        (measured(0.5, 0.7, 0.6), 20, 1),
        (measured(0.7, 0.7, 0.7), 10, 2),
        (measured(0.5, 0.9, 0.6, 0.8).until(30), 20, 1),
        (measured(0.5, 0.9, 0.6).adding({'step': 20, 'accuracy': 0.4}), 10, 1),
    ],
)
def test_history(history, best_step, since):
    assert (history.best_step, history.evaluations_since_best) == (best_step, since)


@pytest.mark.full
def test_another_split_is_not_compared(train_digits, tmp_path):
    options = {'save_interval_steps': 10, 'eval_every_steps': 10, 'learning_rate': 0.1}
    train_digits(tmp_path, max_number_of_steps=30, eval_split_name='test[:3]', **options)
    rows = json.loads((tmp_path / 'evaluations.json').read_text())
    for row in rows:
        row['accuracy'] = 1.0  # which nothing can raise
    (tmp_path / 'evaluations.json').write_text(json.dumps(rows))
    result = train_digits(tmp_path, max_number_of_steps=50, early_stopping_patience=3, **options)
    assert result.step == 50
    assert [row['split'] for row in history_of(result)] == ['test[:3]'] * 2 + [None] * 3
    held = json.loads((tmp_path / 'best' / 'best.json').read_text())
    assert held['measured'] == {'metric': 'accuracy', 'split': None, 'averages': False}
    assert held['checkpoint'] in ('model.ckpt-30', 'model.ckpt-40', 'model.ckpt-50')


def test_what_is_best_stays_where_training_has_gone_back(train_digits, tmp_path, spoil):
    spoil(33 * 16)
    options = {**EVERY_TEN, 'save_interval_steps': 20, 'eval_every_steps': 10, 'learning_rate': 0.1}
    train_digits(tmp_path, recover_from_nonfinite=1, **options)
    rows = json.loads((tmp_path / 'evaluations.json').read_text())
    assert [row['step'] for row in rows] == [10, 20, 30, 40, 50, 60]
    held = json.loads((tmp_path / 'best' / 'best.json').read_text())
    assert held['value'] >= max(row['accuracy'] for row in rows)
    assert (tmp_path / 'best' / f'{held["checkpoint"]}.index').exists()


def test_weights_that_are_not_finite_are_never_the_best(train_digits, tmp_path):
    with pytest.raises(InputError, match=r'variable LeNet/\S+ is not finite at step 1'):
        train_digits(
            tmp_path,
            max_number_of_steps=5,
            eval_every_steps=1,
            learning_rate=3e38,
            weight_decay=1e3,
            optimizer='momentum',
        )
    assert not (tmp_path / 'best').exists()
    assert not (tmp_path / 'evaluations.json').exists()


def test_a_run_cannot_begin_with_weights_that_are_not_finite(trained, train_digits, tmp_path):
    values = {name: value * np.float32(np.nan) for name, value in saved_values(trained.checkpoint_path).items()}
    start = checkpoints.save(str(tmp_path / 'start'), 1, values, max_to_keep=1)
    with pytest.raises(InputError, match='at the start of the run: the weights of --checkpoint_path are not finite'):
        train_digits(
            tmp_path / 'run',
            max_number_of_steps=5,
            checkpoint_path=start,
            recover_from_nonfinite=1,
        )


@pytest.mark.full
def test_an_evaluation_cut_short_is_made_up_for(train_digits, checked, tmp_path, monkeypatch, caplog):
    options = {'save_interval_steps': 10, 'learning_rate': 0.1, 'seed': 3, **CHECKED}
    measure, calls = training_evaluation.measure, []

    def interrupted(subjects, source, recall_at, observers, should_stop):
        calls.append(source)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            while not should_stop():
                time.sleep(0.01)
        return measure(subjects, source, recall_at, observers, should_stop)

    with monkeypatch.context() as patched:
        patched.setattr(training_evaluation, 'measure', interrupted)
        caplog.set_level(logging.INFO, logger='absl')
        stopped = train_digits(tmp_path, **options)
    assert (stopped.step, stopped.stopped_by) == (20, signal.SIGTERM)
    assert 'the evaluation was interrupted; it runs first when training resumes' in caplog.text
    assert [row['step'] for row in history_of(stopped)] == [10]
    assert history_of(train_digits(tmp_path, **options)) == history_of(checked)


# ------------------------------------------------------------------------ event files


@pytest.mark.full
@pytest.mark.parametrize('has_a_gap', [False, True])
def test_steps_rise_in_event_files_where_a_run_went_back(train_digits, tmp_path, has_a_gap):
    options = {'log_every_n_steps': 1, 'save_summaries_secs': 600, 'eval_every_steps': 4, 'save_interval_steps': 5}
    train_digits(tmp_path, max_number_of_steps=13, **options)
    for path in tmp_path.glob('model.ckpt-13.*'):
        path.unlink()
    if has_a_gap:  # an event file of an older version, or of slim's, does not say where its part of the run began
        for path in tmp_path.glob('events*'):
            path.unlink()
        with tf.summary.create_file_writer(str(tmp_path)).as_default():
            for step in range(1, 14):
                tf.summary.scalar('learning_rate', 0.0, step)
    train_digits(tmp_path, max_number_of_steps=18, **options)
    shown = steps_in_tensorboard(tmp_path)
    assert shown['learning_rate'] == list(range(1, 19))
    assert shown['accuracy'] == list(range(11 if has_a_gap else 1, 19))
    assert steps_in_tensorboard(tmp_path / 'eval_test')['accuracy'] == [4, 8, 12, 16, 18]
    assert len(list((tmp_path / 'eval_test').glob('events*'))) == 2


@pytest.mark.full
def test_an_evaluation_that_is_made_up_for_replaces_its_point(train_digits, tmp_path):
    options = {'eval_every_steps': 5, 'save_interval_steps': 5}
    train_digits(tmp_path, max_number_of_steps=10, **options)
    history = tmp_path / 'evaluations.json'
    history.write_text(json.dumps(json.loads(history.read_text())[:1]))  # as a kill leaves it before it is written
    train_digits(tmp_path, max_number_of_steps=15, **options)
    assert steps_in_tensorboard(tmp_path / 'eval_test')['accuracy'] == [5, 10, 15]


def test_steps_rise_after_a_recovery(train_digits, tmp_path, spoil):
    spoil(8 * 32)
    options = {'log_every_n_steps': 1, 'save_summaries_secs': 600, 'save_interval_steps': 3}
    train_digits(tmp_path, max_number_of_steps=10, recover_from_nonfinite=1, **options)
    assert steps_in_tensorboard(tmp_path)['learning_rate'] == list(range(1, 11))


# ------------------------------------------------------------------------ rotation


def rotation_of(tmp_path: Path) -> set[int]:
    return {checkpoints.checkpoint_step(prefix) for prefix in checkpoints.list_checkpoints(str(tmp_path))}


def test_one_checkpoint_for_every_so_many_hours_stays(tmp_path, monkeypatch):
    now = 1_700_000_000.0
    for step in range(1, 13):  # one every half hour
        monkeypatch.setattr(checkpoint_files.time, 'time', lambda now=now, step=step: now + 1800 * step)
        checkpoints.save(str(tmp_path), step, {'a': np.float32(step)}, max_to_keep=2, keep_every_n_hours=2)
    assert rotation_of(tmp_path) == {5, 9, 11, 12}
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == ['model.ckpt-11', 'model.ckpt-12']
    assert state.last_preserved_timestamp == now + 1800 * 9


def test_checkpoints_that_no_file_lists_take_their_turn(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(str(tmp_path), step, {'a': np.float32(step)}, max_to_keep=5)
    listed = (tmp_path / 'checkpoint').read_text()
    checkpoints.save(str(tmp_path), 4, {'a': np.float32(4)}, max_to_keep=5)
    (tmp_path / 'checkpoint').write_text(listed)  # killed before it was written
    checkpoints.save(str(tmp_path), 5, {'a': np.float32(5)}, max_to_keep=2)
    assert rotation_of(tmp_path) == {4, 5}


def test_what_a_killed_save_leaves_is_removed(tmp_path):
    for step in (2, 3):
        checkpoints.save(str(tmp_path), step, {'a': np.float32(step)}, max_to_keep=5)
    for name in ('.part-model.ckpt-4.index', 'model.ckpt-1.data-00000-of-00001', 'model.ckpt-5.data-00000-of-00001'):
        (tmp_path / name).write_text('x')
    checkpoints.delete_parts(str(tmp_path))
    assert not (tmp_path / '.part-model.ckpt-4.index').exists()
    assert not (tmp_path / 'model.ckpt-1.data-00000-of-00001').exists()
    assert [Path(prefix).name for prefix in checkpoints.incomplete_checkpoints(str(tmp_path))] == ['model.ckpt-5']


# ------------------------------------------------------------------------ saving beside training


def check(condition: bool) -> None:
    assert condition


def test_a_save_takes_the_values_of_its_moment(tmp_path):
    variable, may_write = tf.Variable(np.zeros(1 << 20, np.float32)), threading.Event()
    with checkpoints.Saver(str(tmp_path), 5) as saver:
        saver.save(1, {'a': variable}, lambda values: check(may_write.wait(60)))
        variable.assign_add(tf.ones_like(variable))
        assert saver.saved() is None
        may_write.set()
        assert saver.wait() == f'{tmp_path}/model.ckpt-1'
    assert saved_values(f'{tmp_path}/model.ckpt-1')['a'].max() == 0
    assert variable.numpy().min() == 1


def test_a_save_that_fails_says_so_at_the_next_look(tmp_path):
    (tmp_path / 'file').touch()
    with checkpoints.Saver(str(tmp_path / 'file' / 'below'), 5) as saver:
        saver.save(1, {'a': np.float32(1)}, lambda values: None)
        with pytest.raises(InputError, match=r'cannot save \S+model\.ckpt-1: .*; the last good checkpoint is none'):
            saver.wait()


# ------------------------------------------------------------------------ flags of a run


def test_a_flagfile_gives_its_options_back():
    config = make_config(
        TrainConfig,
        random_flip=False,
        use_grayscale=True,
        learning_rate_boundaries=(1.0, 2.5),
        num_epochs=0.5,
        dataset_split_name='train[:50%]',
        checkpoint_exclude_scopes=('a/b', 'c'),
    )
    text = f'# a comment\n{to_flagfile(config)}--no_such_option=1\n--neither\n'
    assert from_flagfile(TrainConfig, text) == flat_values(config)


@pytest.mark.full
def test_what_changes_a_run_only_a_little_is_announced(train_digits, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=2)
    with caplog.at_level(logging.WARNING, logger='absl'):
        train_digits(tmp_path, max_number_of_steps=4, learning_rate=0.01, log_every_n_steps=1)
    ours = [record for record in caplog.records if record.name == 'absl' and record.levelno == logging.WARNING]
    assert [record.getMessage() for record in ours] == [
        'learning_rate was 0.03 in this run so far, and is 0.01 from now on'
    ]


def test_a_run_that_goes_on_with_other_kernels_says_so(train_digits, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=1)
    described = tmp_path / 'model.json'
    kernels = json.loads(described.read_text())['kernels']
    assert kernels == describe_kernels(tf.distribute.OneDeviceStrategy('CPU:0'))
    assert kernels.startswith(f'TensorFlow {tf.__version__} with')
    train_digits(tmp_path, max_number_of_steps=2)
    assert 'this run was computed by' not in caplog.text
    described.write_text(described.read_text().replace(kernels, 'another'))
    with caplog.at_level(logging.WARNING, logger='absl'):
        train_digits(tmp_path, max_number_of_steps=3)
    (warning,) = [message for message in caplog.messages if message.startswith('this run was')]
    assert warning.startswith(f'this run was computed by another so far, and is computed by {kernels} from now on')
    assert json.loads(described.read_text())['kernels'] == kernels


def test_force_resume_goes_on_with_other_data(train_digits, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=2)
    options = {'dataset_split_name': 'train[:50%]', 'seed': 1, 'max_number_of_steps': 4}
    with pytest.raises(InputError, match='examples'):
        train_digits(tmp_path, **options)
    assert train_digits(tmp_path, force_resume=True, **options).step == 4
    assert 'seed was 0 in this run so far, and is 1 from now on' in caplog.text


def test_position_counts_only_what_has_happened():
    position = Position(5, 160)
    assert position.counters() == {'global_step': 5, 'images_seen': 160}
    recovered = dataclasses.replace(position, images_skipped=32, recoveries=1)
    assert recovered.stream == 192
    assert recovered.after(2, 32) == Position(7, 224, 32, 1)
    assert set(actions.Moment(recovered, None, 32).position.counters()) == {  # type: ignore[arg-type]
        'global_step',
        'images_seen',
        'images_skipped',
        'nonfinite_recoveries',
    }


# ------------------------------------------------------------------------ what is found in the folder


@pytest.mark.quick('{other}*')
@pytest.mark.parametrize(
    ('name', 'is_read'),
    [
        ('{other}/model.ckpt-3', True),
        ('best/model.ckpt-2', False),  # the run has one of that name
        ('evaluations.json\\000', False),
        ('\\000', False),
    ],
)
def test_only_checkpoints_of_the_run_are_set_aside(train_digits, tmp_path, caplog, name, is_read):
    """A `checkpoint` file may name whatever it likes."""
    options = {'eval_every_steps': 2, 'save_interval_steps': 1}
    train_digits(tmp_path / 'other', max_number_of_steps=3, **options)
    train_digits(tmp_path / 'run', max_number_of_steps=2, **options)
    for damaged in ('other/model.ckpt-3', 'run/best/model.ckpt-2'):
        (tmp_path / f'{damaged}.index').write_bytes(b'not an index')
    name = name.format(other=tmp_path / 'other')
    (tmp_path / 'run' / 'checkpoint').write_text(f'model_checkpoint_path: "{name}"\n')
    before = [files_of(folder) for folder in (tmp_path / 'other', tmp_path / 'run' / 'best')]
    assert train_digits(tmp_path / 'run', max_number_of_steps=3, best_metric='none').step == 3
    assert [files_of(folder) for folder in (tmp_path / 'other', tmp_path / 'run' / 'best')] == before
    assert not list(tmp_path.rglob('damaged-*'))
    assert (tmp_path / 'run' / 'evaluations.json').exists()
    assert (f'is not moved: it is outside --train_dir={tmp_path}/run' in caplog.text) == is_read


@pytest.mark.full
def test_a_run_that_is_over_names_the_checkpoint_that_it_restored(train_digits, tmp_path):
    for run in ('other', 'run'):
        train_digits(tmp_path / run, max_number_of_steps=2)
    (tmp_path / 'other' / 'model.ckpt-2.index').rename(tmp_path / 'other' / 'model.ckpt-9.index')
    (tmp_path / 'run' / 'checkpoint').write_text(f'model_checkpoint_path: "{tmp_path}/other/model.ckpt-9"\n')
    (tmp_path / 'other' / 'model.ckpt-9.index').write_bytes(b'not an index')
    assert train_digits(tmp_path / 'run', max_number_of_steps=2).checkpoint_path == f'{tmp_path}/run/model.ckpt-2'


DAMAGED = 'damaged, or written by another version: '


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        *(('model.json', text, DAMAGED) for text in ('', '{', '[]', '{"model_name": "lenet"}', '{"label_names": 3}')),
        ('model.json', '[' * 100_000, f'{DAMAGED}.*; put it right'),
        *(('evaluations.json', text, f'{DAMAGED}.*; delete it, and evaluations begin anew')
          for text in ('', '{', '[1]', '[{"accuracy": 1}]', '[{"step": "a"}]', '[' * 100_000)),
        ('evaluations.json', '{}', 'another version: not a list of evaluations; delete it'),
        ('evaluations.json', '[{"step": 1, "accuracy": null}]', 'accuracy is None at step 1, not from 0 to 1; delete'),
        ('evaluations.json', '[{"step": 1, "accuracy": NaN}]', 'accuracy is nan at step 1'),
    ],
)  # fmt: skip
def test_a_file_of_the_run_that_says_nonsense(train_digits, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf'{re.escape(name)}: .*{message}'):
        train_digits(tmp_path, max_number_of_steps=4, eval_every_steps=4)
    assert (tmp_path / name).read_text() == text


def test_data_of_the_run_that_say_nonsense(train_digits, tmp_path):
    train_digits(tmp_path, max_number_of_steps=2)
    (tmp_path / 'data.json').write_text('[' * 100_000)
    with pytest.raises(InputError, match=r'data\.json: damaged, .*; delete it to go on without the comparison'):
        train_digits(tmp_path, max_number_of_steps=4)


@pytest.mark.full
@pytest.mark.parametrize('value', ['NaN', '1' + '0' * 400, '"a"', 'null', '[' * 100_000])
def test_a_record_of_the_best_that_says_nonsense_is_replaced(train_digits, tmp_path, value):
    train_digits(tmp_path, max_number_of_steps=2, eval_every_steps=2)
    record = tmp_path / 'best' / 'best.json'
    record.write_text(f'{{"checkpoint": "model.ckpt-2", "value": {value}, "measured": {{}}}}')
    result = train_digits(tmp_path, max_number_of_steps=4, eval_every_steps=2)
    assert json.loads(record.read_text())['value'] == max(row['accuracy'] for row in history_of(result))


@pytest.mark.full
def test_a_flagfile_of_the_run_that_is_none_is_not_compared(train_digits, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=2)
    (tmp_path / 'config.cfg').write_text('null\n')
    assert train_digits(tmp_path, max_number_of_steps=4).step == 4
    assert 'config.cfg: damaged, so flags are not compared with it: no flagfile' in caplog.text


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(train_digits, tmp_path, monkeypatch):
    train_digits(tmp_path, max_number_of_steps=4, save_interval_steps=2)
    before = {path.name for path in tmp_path.glob('*model.ckpt*')}
    data = tmp_path / 'model.ckpt-4.data-00000-of-00001'
    truncated = data.read_bytes()[:100]  # the library reads as root; what it finds, and what access says, is the same
    data.write_bytes(truncated)
    monkeypatch.setattr(os, 'access', lambda path, mode: not str(path).endswith(data.name))
    with pytest.raises(InputError, match=r'data-00000-of-00001: cannot be read: permission denied'):
        train_digits(tmp_path, max_number_of_steps=6)
    assert {path.name for path in tmp_path.glob('*model.ckpt*')} == before
