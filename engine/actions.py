"""What training does between steps: log, save, evaluate, write summaries.

Each action says with its `interval` when it is due; the loop knows nothing else of it, so a new one is a class here and
a line in `engine.learning.make_actions`.
"""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs.config import CheckpointOptions, LogOptions, TrainConfig
from configs.errors import InputError
from configs.progress import Progress
from datasets import input_pipeline
from datasets.dataset_factory import Dataset
from engine import checkpoints, evaluation
from engine.intervals import Interval
from engine.summaries import SummaryWriter
from engine.train_state import TrainState
from engine.train_step import StepReport
from preprocessing.preprocessing_factory import Preprocessing


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where training is, after a call of several steps.

    Attributes:
        step: Steps made in all.
        images_seen: Examples taken in all.
        report: Of the steps just made.
        batch_size: Examples a step.
    """

    step: int
    images_seen: int
    report: StepReport
    batch_size: int

    @property
    def total_loss(self) -> float:
        """Cross-entropy and L2 loss of the last step, before its update, as slim logs it."""
        return float(self.report.cross_entropy[-1]) + self.report.regularization

    @property
    def seconds_per_step(self) -> float:
        return self.report.seconds / len(self.report.cross_entropy)

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.seconds_per_step

    @property
    def wait_share(self) -> float:
        """Share of the time, in [0, 1], in which the step waited for the input pipeline."""
        return self.report.waited / self.report.seconds


class Action(abc.ABC):
    """Something that is due at some steps, and perhaps after the last one, or where a signal stops training."""

    interval: Interval
    at_end: bool = True
    at_stop: bool = False
    last_step: int | None = None

    def run(self, moment: Moment) -> None:
        """Does it, and notes the step."""
        self.last_step = moment.step
        self.act(moment)

    @abc.abstractmethod
    def act(self, moment: Moment) -> None:
        """Does it."""


class Log(Action):
    """A line, or the bar's text: step, loss, learning rate, images/s, share of time spent waiting for data."""

    def __init__(self, options: LogOptions, progress: Progress):
        self.interval = Interval(steps=options.log_every_n_steps)
        self._progress = progress

    def act(self, moment: Moment) -> None:
        loss, rate = moment.total_loss, moment.report.learning_rate
        speed, waiting = moment.images_per_second, moment.wait_share
        self._progress.report(
            moment.step,
            f'global step {moment.step}: loss = {loss:.4f} ({moment.seconds_per_step:.3f} sec/step), '
            f'learning rate {rate:.4g}, {speed:.1f} images/s, waiting for data {waiting:.0%}',
            brief=f'loss {loss:.4f}, lr {rate:.3g}, {speed:.0f} img/s, wait {waiting:.0%}',
        )


class Save(Action):
    """A checkpoint, once the weights are known to be finite."""

    at_stop = True

    def __init__(self, options: CheckpointOptions, state: TrainState, progress: Progress):
        self.interval = Interval(steps=options.save_interval_steps, seconds=options.save_interval_secs)
        self._options, self._state, self._progress = options, state, progress
        self.saved: str | None = None

    def act(self, moment: Moment) -> None:
        variables = self._state.saved_variables()
        broken = [name for name, value in variables.items() if not np.isfinite(tf.reduce_sum(value).numpy())]
        if broken:
            latest = checkpoints.latest_checkpoint(self._options.train_dir)
            raise InputError(non_finite_message(f'variable {broken[0]}', f'at step {moment.step}', latest))
        counters = {
            checkpoints.STEP_KEY: np.int64(moment.step),
            checkpoints.IMAGES_SEEN_KEY: np.int64(moment.images_seen),
        }
        self.saved = checkpoints.save(
            self._options.train_dir,
            moment.step,
            {**variables, **counters},
            self._options.max_checkpoints_to_keep,
        )
        self._progress.say(f'saved {self.saved}')


class Evaluate(Action):
    """Accuracy and Recall@k of the weights as they are, or of their moving averages where those are kept."""

    def __init__(
        self,
        interval: Interval,
        evaluator: evaluation.Evaluator,
        state: TrainState,
        eval_dir: str,
        num_examples: int,
    ):
        self.interval = interval
        self._evaluator, self._state = evaluator, state
        self._eval_dir, self._num_examples = eval_dir, num_examples
        self.results: evaluation.Results | None = None

    def act(self, moment: Moment) -> None:
        with _averages_as_weights(self._state):
            measured = self._evaluator()
        self.results = {**measured, 'step': moment.step, 'checkpoint_path': ''}
        evaluation.report(self.results, self._num_examples)
        evaluation.write_summaries(self._eval_dir, self.results)


@contextlib.contextmanager
def _averages_as_weights(state: TrainState) -> Iterator[None]:
    """Lets the net compute with its moving averages, if there are any, and puts the weights back."""
    if state.averages is None:
        yield
        return
    kept = {name: variable.numpy() for name, variable in state.variables.items()}
    try:
        for name, variable in state.variables.items():
            variable.assign(tf.convert_to_tensor(state.averages.averages[name + state.averages.SUFFIX]))
        yield
    finally:
        for name, variable in state.variables.items():
            variable.assign(kept[name])


class NextImages:
    """The images of the step to come, as the net will see them; takes nothing from the training stream."""

    def __init__(self, config: TrainConfig, dataset: Dataset, preprocessing: Preprocessing):
        self._data, self._dataset, self._preprocessing = config.data, dataset, preprocessing

    def __call__(self, images_seen: int) -> tf.Tensor:
        """Returns float32 [batch, height, width, channels]."""
        size, seed = self._data.batch_size, self._data.seed
        batches = input_pipeline.training_batches(self._dataset, self._preprocessing, size, seed, images_seen)
        draws = self._preprocessing.make_draws(tf.constant([seed, images_seen], tf.int64), size)
        return self._preprocessing.device_train(next(iter(batches))['image'], draws)


class Summarize(Action):
    """Scalars for TensorBoard, and on request histograms and images."""

    def __init__(
        self,
        options: LogOptions,
        state: TrainState,
        preprocessing: Preprocessing,
        next_images: NextImages,
        train_dir: str,
    ):
        self.interval = Interval(steps=options.save_summaries_steps, seconds=options.save_summaries_secs)
        self._options, self._state, self._preprocessing = options, state, preprocessing
        self._next_images = next_images
        self._writer = SummaryWriter(train_dir)

    def act(self, moment: Moment) -> None:
        report = moment.report
        self._writer.scalars(
            moment.step,
            {
                'losses/total_loss': moment.total_loss,
                'losses/cross_entropy': float(report.cross_entropy[-1]),
                'losses/regularization_loss': report.regularization,
                'learning_rate': report.learning_rate,
                'images_per_second': moment.images_per_second,
                'data_wait_share': moment.wait_share,
            },
        )
        if self._options.summarize_images or self._options.summarize_histograms:
            images = self._next_images(moment.images_seen)
            if self._options.summarize_images:
                self._writer.images(moment.step, images, self._preprocessing.value_range)
            if self._options.summarize_histograms:
                self._writer.histograms(moment.step, self._state, images)


def non_finite_message(what: str, where: str, latest: str | None) -> str:
    """Returns the message for a value that is not finite any more."""
    return (
        f'{what} is not finite {where}; the last good checkpoint is {latest or "none"}. A lower --learning_rate, '
        '--warmup_epochs or --clip_gradient_norm may keep it finite'
    )
