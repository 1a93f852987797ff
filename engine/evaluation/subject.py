"""Classifiers to evaluate: a net under a strategy, with a run's or a checkpoint's weights, or an exported file.

subject = open_subject('/tmp/net.tflite', config, strategy, cluster)
(results,) = measure([subject], source, recall_at=(5,))
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.devices import DeviceOptions
from configs.evaluation import EvalConfig
from configs.names import PREPROCESSING_FAMILIES
from engine import checkpoints
from engine.classifiers import Classifier, load_classifier
from engine.classifiers.checkpoint import resolve_spec, restore_weights
from engine.classifiers.loading import find_runtime
from engine.classifiers.model_spec import ModelSpec
from engine.classifiers.temperature import stored_temperature
from engine.distributed import distribution
from engine.distributed.cluster import Cluster
from engine.evaluation.measure import Subject
from engine.optim.reduction import broadcast
from nets import layers, nets_factory
from nets.building import zero_weights
from nets.variables import slim_variables
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError

_PREPROCESSING_FLAG = '--preprocessing_name='


class ReplicatedNet:
    """A Keras model with its current weights; each replica of a strategy scores its share of a batch.

    Attributes:
        model: The model.
        preprocessing: The preprocessing of its images.
        output: 'logits'.
        temperature: 1: the probabilities are those of the logits as they are.
    """

    output = 'logits'
    temperature = 1.0

    def __init__(
        self,
        model: keras.Model,
        preprocessing: Preprocessing,
        strategy: tf.distribute.Strategy,
        devices: DeviceOptions,
    ):
        self.model, self.preprocessing, self._strategy = model, preprocessing, strategy
        is_fast = distribution.use_fast_convolutions(devices, strategy)

        def classify(images: tf.Tensor) -> tf.Tensor:
            with layers.fast_convolutions(is_fast):
                return model(preprocessing.device_eval(images), training=False)

        if distribution.use_xla(devices, strategy):
            classify = tf.function(classify, jit_compile=True, autograph=False)
        self._score = tf.function(lambda images: strategy.run(classify, args=(images,)), autograph=False)

    def score(self, images: Any) -> Any:
        """Returns logits, float32 [batch, classes], of images, float32 [batch, height, width, channels].

        Both are distributed values of the strategy: one tensor per replica.
        """
        return self._score(images)

    @functools.cached_property
    def hidden_layers(self) -> keras.Model:
        """The net from its input to its end points by name, in order, without logits and predictions."""
        end_points = nets_factory.get_end_points(self.model)
        hidden = {
            name: output
            for name, output in end_points.items()
            if name != 'Predictions' and output is not self.model.output
        }
        return keras.Model(self.model.input, hidden)


class CheckpointSubject(ReplicatedNet):
    """A net that takes the weights of one checkpoint after another; with several workers, only the chief reads them.

    Attributes:
        path: Prefix of the current checkpoint.
        kind: 'checkpoint'.
        spec: The net and its preprocessing.
        step: The training step of the current checkpoint; -1 if unknown.
        images_seen: The number of examples that it was trained on; -1 if unknown, as in slim's.
        temperature: Its probabilities are softmax(logits / temperature).
    """

    kind = 'checkpoint'

    def __init__(self, prefix: str, config: EvalConfig, strategy: tf.distribute.Strategy, cluster: Cluster):
        """Builds the net of a checkpoint and restores its weights; raises as `restore`."""
        self._cluster, self._scope = cluster, config.foreign.checkpoint_scope
        self._averages = bool(config.evaluation.moving_average_decay)
        # What is fitted is the temperature of the logits as they are.
        self._asked = 1.0 if config.output.fit_temperature else config.evaluation.temperature

        def find_spec() -> dict[str, Any]:
            self._opened = checkpoints.Checkpoint(prefix, self._scope)
            return dataclasses.asdict(resolve_spec(self._opened, config.net, self._averages, config.net.force))

        self.spec = ModelSpec.from_json(_read_on_chief(cluster, find_spec))
        with strategy.scope(), zero_weights():
            model = self.spec.make_model(mixed_precision=config.net.mixed_precision)
        super().__init__(model, self.spec.make_preprocessing(), strategy, config.devices)
        self._restore(prefix, lambda: self._opened)

    def restore(self, prefix: str) -> None:
        """Restores the weights of another checkpoint of the same run.

        Raises:
            DamagedCheckpointError: the checkpoint cannot be read; raised on all workers.
            InputError: the checkpoint belongs to another net.
        """
        self._restore(prefix, lambda: checkpoints.Checkpoint(prefix, self._scope))

    def _restore(self, prefix: str, open_it: Callable[[], checkpoints.Checkpoint]) -> None:
        def read() -> tuple[int, int, float]:
            checkpoint = open_it()
            restore_weights(checkpoint, self.model, self._averages)
            images_seen = checkpoint.read_int(checkpoints.IMAGES_SEEN_KEY, -1)
            return checkpoint.step, images_seen, self._asked or stored_temperature(prefix, self.model)

        self.path = prefix
        self.step, self.images_seen, self.temperature = _read_on_chief(self._cluster, read)
        if self._cluster.count > 1:
            weights = [variable.value for variable in slim_variables(self.model).values()]
            with distribution.naming_lost_workers(self._cluster):
                broadcast(self._strategy, weights)

    def variants(self) -> dict[str, Subject]:
        """Returns the same net with every other preprocessing that it can have, by flag."""
        return {
            _PREPROCESSING_FLAG + name: _EagerNet(self.model, spec.make_preprocessing(), self._strategy)
            for name, spec in _other_preprocessings(self.spec).items()
        }


class _EagerNet:
    """A net for a few images of a single process: compiling it would take longer."""

    output, temperature = 'logits', 1.0

    def __init__(self, model: keras.Model, preprocessing: Preprocessing, strategy: tf.distribute.Strategy):
        self._model, self.preprocessing, self._strategy = model, preprocessing, strategy

    def score(self, images: Any) -> np.ndarray:
        """Returns logits, float32 [batch, classes]."""
        inputs = self.preprocessing.device_eval(distribution.local_rows(self._strategy, images))
        return np.asarray(self._model(inputs, training=False), np.float32)


class FileSubject:
    """An exported file, which its own runtime runs on whole batches.

    Attributes:
        path: The file or folder.
        kind: Its format, for tables: 'TFLite int8'.
        spec: The net and its preprocessing.
        step: The training step at which it was written; -1 if unknown.
        images_seen: -1, unknown.
        preprocessing: The preprocessing of its images.
        output: 'logits' or 'probabilities'.
        temperature: Its probabilities are softmax(logits / temperature); if it gives them, it is included.
    """

    images_seen = -1

    def __init__(self, classifier: Classifier, strategy: tf.distribute.Strategy):
        self._classifier, self._strategy = classifier, strategy
        self.path, self.kind, self.spec, self.step = classifier.path, classifier.kind, classifier.spec, classifier.step
        self.preprocessing, self.output = classifier.preprocessing, classifier.interface.output
        self.temperature = classifier.interface.temperature

    def score(self, images: Any) -> np.ndarray:
        """Returns scores, float32 [batch, classes]; raises InputError if they are not finite."""
        scores = self._classifier.scores(distribution.local_rows(self._strategy, images))
        if not np.isfinite(scores).all():
            raise InputError(f'{self.path} gives values that are not finite: it is damaged, or has diverged')
        return scores

    def variants(self) -> dict[str, Subject]:
        """Returns the same file with every other preparation of its images that it can have, by flag."""
        classifier, interface = self._classifier, self._classifier.interface
        others = {
            _PREPROCESSING_FLAG + name: dataclasses.replace(classifier, spec=spec)
            for name, spec in _other_preprocessings(self.spec).items()
        }
        if self.spec.channels == self.preprocessing.source_channels:
            no = 'no' if interface.include_preprocessing else ''
            toggled = dataclasses.replace(interface, include_preprocessing=not interface.include_preprocessing)
            others[f'--{no}includes_preprocessing'] = dataclasses.replace(classifier, interface=toggled)
        return {flag: FileSubject(other, self._strategy) for flag, other in others.items()}


def _other_preprocessings(spec: ModelSpec) -> dict[str, ModelSpec]:
    """Returns the specs of a net with each other family of preprocessing that fits its images, by family."""
    own, others = type(spec.make_preprocessing()), {}
    for name in PREPROCESSING_FAMILIES:
        other = dataclasses.replace(spec, preprocessing_name=name)
        with contextlib.suppress(InputError):  # of this size or number of channels
            if type(other.make_preprocessing()) is not own:
                others[name] = other
    return others


def open_subject(
    path: str,
    config: EvalConfig,
    strategy: tf.distribute.Strategy,
    cluster: Cluster,
    flag: str = 'checkpoint_path',
) -> CheckpointSubject | FileSubject:
    """Opens a checkpoint or an exported file for evaluation.

    Args:
        path: A checkpoint, a folder of them, a `.keras`, `.weights.h5`, `.tflite` or `.onnx` file, or a SavedModel.
        config: The evaluation's options.
        strategy: The strategy of the replicas that run a checkpoint.
        cluster: The workers.
        flag: The flag that named the path, for messages.

    Raises:
        DamagedCheckpointError: a checkpoint cannot be read; raised on all workers.
        InputError: the file cannot be opened or lacks needed information, or flags contradict it.
    """
    if not is_file(path):
        prefix = cluster.on_chief(lambda: checkpoints.find_checkpoint(path, flag))
        return CheckpointSubject(prefix, config, strategy, cluster)
    if config.output.fit_temperature:
        raise InputError(
            f'--fit_temperature: {path} is an exported file; fit the temperature of its checkpoint, and export again'
        )
    classifier = load_classifier(
        path,
        config.net,
        config.foreign,
        averages=bool(config.evaluation.moving_average_decay),
        mixed_precision=config.net.mixed_precision,
        temperature=config.evaluation.temperature,
    )
    return FileSubject(classifier, strategy)


def is_file(path: str) -> bool:
    """Returns whether a path is an exported file, not a checkpoint or missing."""
    return find_runtime(path) is not None


def _read_on_chief(cluster: Cluster, read: Callable[[], Any]) -> Any:
    """Calls `read` on the chief and returns its result on all workers.

    Raises:
        DamagedCheckpointError: the checkpoint is damaged; raised on all workers, which then try another one together.
    """

    def read_or_damage() -> dict[str, Any]:
        try:
            return {'read': read()}
        except checkpoints.DamagedCheckpointError as error:
            return {'damage': str(error)}

    result = cluster.on_chief(read_or_damage)
    if 'damage' in result:
        raise checkpoints.DamagedCheckpointError(result['damage'])
    return result['read']
