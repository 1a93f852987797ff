"""Short runs on the embedded digits, and how tests look at what a run leaves behind."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from configs.evaluation import EvalConfig
from configs.options import make_config
from configs.training import TrainConfig
from datasets.conversion import journal
from engine import checkpoints
from engine.classifiers.model_spec import ModelSpec
from engine.training import run_dir

_LOCKS = {run_dir.LOCK, journal.LOCK}  # who holds one stands in it, and no data
# The digits are images of 8x8 pixels: a step takes milliseconds.
SMALL_RUN = {
    'dataset_name': 'digits',
    'model_name': 'lenet',
    'train_image_size': 8,
    'depth_multiplier': 0.25,
    'optimizer': 'momentum',
    'learning_rate': 0.03,
    'save_summaries_secs': 0,
}
# Nothing moves at this rate, so a run of one step shows where it started.
STILL = {'learning_rate': 0.0, 'max_number_of_steps': 1, 'seed': 1}
# What an evaluation must be told of the net of such a run where there is no model.json.
DIGITS_NET = {'model_name': 'lenet', 'eval_image_size': 8, 'depth_multiplier': 0.25, 'dataset_name': 'digits'}


def small_config(dataset_dir: Path | str, train_dir: Path | str, /, **options: Any) -> TrainConfig:
    """Returns the config of a small run, with some options replaced."""
    folders = {'dataset_dir': str(dataset_dir), 'train_dir': str(train_dir)}
    return make_config(TrainConfig, **{**SMALL_RUN, **folders, **options})


def tiny_spec(num_classes: int, channels: int) -> ModelSpec:
    """Returns a lenet of width 1/16 for 8x8 images, trained on no data set that is known."""
    return ModelSpec.for_net(
        'lenet',
        num_classes=num_classes,
        channels=channels,
        preprocessing_name=None,
        image_size=8,
        depth_multiplier=1 / 16,
        labels_offset=0,
        use_grayscale=False,
        dataset_name='',
    )


def saved_values(prefix: str) -> dict[str, np.ndarray]:
    """Returns everything in a checkpoint by name."""
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def weights_of(prefix: str) -> dict[str, np.ndarray]:
    """Returns the weights in a checkpoint by name."""
    return {name: value for name, value in saved_values(prefix).items() if not checkpoints.is_training_state(name)}


def assert_same_values(actual: str, expected: str) -> None:
    """Checks that two checkpoints hold the same names and the same bits."""
    values, others = saved_values(actual), saved_values(expected)
    assert set(values) == set(others)
    for name, value in values.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def files(folder: Path | str) -> dict[str, tuple[int, bytes]]:
    """Returns the time of change and the content of every file in a folder by its name."""
    paths = [path for path in Path(folder).iterdir() if path.is_file() and path.name not in _LOCKS]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def flip(path: Path) -> None:
    """Changes the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path, share: float = 0.5) -> None:
    """Takes the end of a file away."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


_DATA = '.data-00000-of-00001'
# What may happen to the files of a checkpoint, by its prefix.
DAMAGES: dict[str, Callable[[str], object]] = {
    'data cut': lambda prefix: cut(Path(prefix + _DATA)),
    'data empty': lambda prefix: cut(Path(prefix + _DATA), 0),
    'data missing': lambda prefix: Path(prefix + _DATA).unlink(),
    'data changed': lambda prefix: flip(Path(prefix + _DATA)),
    'index cut': lambda prefix: cut(Path(f'{prefix}.index')),
    'index empty': lambda prefix: cut(Path(f'{prefix}.index'), 0),
    'index changed': lambda prefix: Path(f'{prefix}.index').write_bytes(b'garbage' * 100),
}


def checkpoint_files(folder: Path | str) -> dict[str, tuple[int, bytes]]:
    """Returns the files of a folder that belong to checkpoints, as `files` does."""
    return {name: file for name, file in files(folder).items() if name.startswith(('model.ckpt', 'checkpoint'))}


def summaries(folder: Path | str) -> dict[str, dict[int, Any]]:
    """Returns the values in a folder's event files, by tag and step, as arrays; without the run's options."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for path in sorted(Path(folder).glob('events.out.tfevents.*')):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name != 'hparams':
                    found[value.tag][event.step] = tf.make_ndarray(value.tensor)
    # The names of files that began in the same second do not tell which came first.
    return {tag: dict(sorted(of_tag.items())) for tag, of_tag in found.items()}


def steps_in_tensorboard(folder: Path | str) -> dict[str, list[int]]:
    """Returns the steps that TensorBoard shows of a folder, by tag, in the order in which they come."""
    events = plugin_event_accumulator.EventAccumulator(str(folder), size_guidance={'tensors': 0}).Reload()
    return {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()['tensors']}


@contextlib.contextmanager
def data_service(workers: int = 1) -> Iterator[str]:
    """Yields the address of a dispatcher of a tf.data service with workers, in this process.

    Of each test its own: its workers tune, and the longer they have, the longer they take to end.
    """
    servers = tf.data.experimental.service
    dispatcher = servers.DispatchServer(servers.DispatcherConfig(port=0))
    address = dispatcher.target.removeprefix('grpc://')
    config = servers.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=100)
    started = [servers.WorkerServer(config) for _ in range(workers)]
    yield dispatcher.target
    for worker in started:
        worker.stop()
    dispatcher._stop()


def eval_config(checkpoint_path: Path | str, **options: Any) -> EvalConfig:
    """Returns the config of an evaluation."""
    return make_config(EvalConfig, checkpoint_path=str(checkpoint_path), **options)
