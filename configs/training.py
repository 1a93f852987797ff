"""The options of training, each declared once: default, unit, range and help.

Defaults are slim's (research/slim/train_image_classifier.py, eval_image_classifier.py) unless the help says otherwise.
"""

import dataclasses
import re

from configs.data import AugmentOptions, DataOptions
from configs.devices import ClusterOptions, DeviceOptions
from configs.options import Options, option
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class NetOptions(Options):
    """Net and numeric precision."""

    model_name: str = option('alexnet_v2', 'Net to train. (slim: inception_v3)')
    depth_multiplier: float = option(1.0, 'Scales the width of every layer except the last.', above=0.0, upper=16.0)
    dropout_keep_prob: float | None = option(
        None,
        "Probability that dropout keeps a value. Default: the net's own.",
        above=0.0,
        upper=1.0,
        fixed=True,
    )
    train_image_size: int | None = option(
        None, "Side of the training images in pixels. Default: the net's own.", lower=1, upper=2**13
    )
    global_pool: bool = option(
        False,
        'alexnet_v2: average over all positions before the logits; images of 227 pixels or more need this.',
        fixed=True,
    )
    weight_decay: float = option(
        0.00004,
        'L2 factor: adds weight_decay * sum(w^2) / 2 to the loss for each weight that the net decays.',
        lower=0.0,
    )
    weight_decay_exclude: tuple[str, ...] = option(
        (),
        'Regular expressions, separated by commas, searched in variable names; matching weights do not decay. Biases '
        'never do.',
        regex=True,
    )
    mixed_precision: str = option(
        'float32',
        'float32; tf32: float32, but GPUs may multiply in TensorFloat-32; bfloat16 or float16: layers compute in '
        'this type (float16 with a dynamic loss scale). Variables, logits and loss are always float32.',
        choices=('float32', 'tf32', 'bfloat16', 'float16'),
    )
    sync_batch_norm: bool = option(
        False,
        "Normalise with the statistics of the whole batch instead of each replica's share. Moving statistics are "
        "averaged over the replicas either way (slim keeps the first clone's).",
        fixed=True,
    )


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(Options):
    """Optimizer. Defaults are slim's, which has neither lars nor lamb."""

    optimizer: str = option(
        'rmsprop', 'adadelta, adagrad, adam, ftrl, momentum, sgd, rmsprop, lars or lamb.', fixed=True
    )
    adadelta_rho: float = option(0.95, 'Decay rate of adadelta.', lower=0.0, upper=1.0)
    adagrad_initial_accumulator_value: float = option(0.1, 'Initial value of the adagrad accumulators.', above=0.0)
    adam_beta1: float = option(0.9, 'Decay rate of the first moment in adam and lamb.', lower=0.0, upper=1.0)
    adam_beta2: float = option(0.999, 'Decay rate of the second moment in adam and lamb.', lower=0.0, upper=1.0)
    opt_epsilon: float = option(
        1.0, 'Epsilon of adadelta, adam and rmsprop (in rmsprop, inside the square root).', lower=0.0
    )
    ftrl_learning_rate_power: float = option(-0.5, 'Learning rate power of ftrl.', upper=0.0)
    ftrl_initial_accumulator_value: float = option(0.1, 'Initial value of the ftrl accumulators.', lower=0.0)
    ftrl_l1: float = option(0.0, 'L1 regularisation strength of ftrl.', lower=0.0)
    ftrl_l2: float = option(0.0, 'L2 regularisation strength of ftrl.', lower=0.0)
    momentum: float = option(0.9, 'Momentum of the momentum and lars optimizers.', lower=0.0, upper=1.0)
    rmsprop_momentum: float = option(0.9, 'Momentum of rmsprop.', lower=0.0, upper=1.0)
    rmsprop_decay: float = option(
        0.9, 'Decay rate of the mean square of rmsprop, which starts at 1.', lower=0.0, upper=1.0
    )
    lars_eta: float = option(0.001, 'Trust coefficient of lars.', above=0.0)
    lamb_epsilon: float = option(1e-6, 'Epsilon of lamb, outside the square root.', above=0.0)
    trust_ratio_exclude: tuple[str, ...] = option(
        ('biases$', 'beta$', 'gamma$'),
        'lars and lamb: regular expressions, separated by commas, searched in variable names; matching variables use '
        'the plain learning rate, without a trust ratio.',
        regex=True,
    )
    clip_gradient_norm: float = option(0.0, 'Maximum global norm of the gradients; 0 disables clipping.', lower=0.0)
    gradient_dtype: str = option(
        'float32',
        'Type in which gradients are exchanged between replicas and summed; bfloat16 halves the traffic.',
        choices=('float32', 'bfloat16'),
    )


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(Options):
    """Learning rate schedule."""

    learning_rate_decay_type: str = option(
        'exponential', 'fixed, exponential (a staircase), polynomial, cosine or piecewise.'
    )
    learning_rate: float = option(0.01, 'Initial learning rate.', lower=0.0)
    end_learning_rate: float = option(0.0001, 'Learning rate at the end of polynomial and cosine decay.', lower=0.0)
    scale_learning_rate: str = option(
        'none',
        'Scale --learning_rate and --end_learning_rate by (examples per step) / --scale_learning_rate_from (linear), '
        'by its square root (sqrt), or not at all (none).',
        choices=('none', 'linear', 'sqrt'),
    )
    scale_learning_rate_from: int = option(
        256, 'Examples per step for which --learning_rate was chosen.', lower=1, upper=2**20
    )
    learning_rate_decay_factor: float = option(0.94, 'Factor of each exponential or piecewise decay.', above=0.0)
    num_epochs_per_decay: float = option(
        2.0,
        'Epochs between decays (exponential), or until the end of the decay (polynomial).',
        above=0.0,
        upper=1e9,
    )
    polynomial_power: float = option(1.0, 'Power of polynomial decay; 1 is linear.', above=0.0)
    learning_rate_boundaries: tuple[float, ...] = option(
        (),
        'piecewise: epochs, separated by commas, after which the rate is multiplied by --learning_rate_decay_factor.',
        lower=0.0,
        upper=1e9,
    )
    warmup_epochs: float = option(0.0, 'Epochs of linear warm-up from 0 to the learning rate.', lower=0.0, upper=1e9)


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """Loss and moving averages."""

    label_smoothing: float = option(0.0, 'Share of a uniform distribution mixed into the labels.', lower=0.0, upper=1.0)
    moving_average_decay: float | None = option(
        None,
        'Decay of the moving averages of the weights. Default, or 0: no averages.',
        lower=0.0,
        upper=1.0,
    )


@dataclasses.dataclass(frozen=True)
class LengthOptions(Options):
    """Length of training. Without a limit, training runs until stopped (the embedded digits: 15 epochs)."""

    max_number_of_steps: int | None = option(None, 'Stop after this many steps.', lower=1)
    num_epochs: float | None = option(
        None, 'Stop after this many passes over the training split.', above=0.0, upper=1e9
    )


@dataclasses.dataclass(frozen=True)
class CheckpointOptions(Options):
    """Checkpoints: saving, resuming and fine-tuning."""

    train_dir: str = option(
        '/tmp/tfmodel/', 'Folder for checkpoints, config.cfg, model.json and event files.', path=True
    )
    save_interval_secs: int = option(
        600, 'Seconds between checkpoints; 0 disables saving by time. The last step is always saved.', lower=0
    )
    save_interval_steps: int = option(
        0, 'Steps between checkpoints; 0 disables saving by steps. The last step is always saved.', lower=0
    )
    max_checkpoints_to_keep: int = option(5, 'Number of latest checkpoints to keep; 0 keeps all.', lower=0)
    keep_checkpoint_every_n_hours: float | None = option(
        None, 'Also keep one checkpoint permanently every N hours.', above=0.0, upper=1e6
    )
    best_metric: str = option(
        'accuracy',
        'accuracy or recall_at_<k>: metric, measured by --eval_every_*, by which the best checkpoint is kept in '
        '<train_dir>/best; none keeps none.',
    )
    checkpoint_path: str | None = option(
        None,
        'Initial weights for a new run (fine-tuning): a checkpoint, a .keras or .weights.h5 file, or a folder of '
        'checkpoints.',
        path=True,
    )
    checkpoint_exclude_scopes: tuple[str, ...] = option(
        (), 'Prefixes, separated by commas, of variables not to restore from --checkpoint_path.'
    )
    checkpoint_scope: str | None = option(
        None, 'Prefix to remove from all variable names in --checkpoint_path, such as tower_0.'
    )
    ignore_missing_vars: bool = option(False, 'Warn instead of failing if --checkpoint_path lacks a variable.')
    trainable_scopes: tuple[str, ...] = option(
        (), 'Scopes, separated by commas, of the variables to train. Default: all.', fixed=True
    )
    freeze_batch_norm: bool = option(
        False,
        'Batch normalisation outside --trainable_scopes normalises with its moving statistics and does not update '
        'them. By default it uses batch statistics and updates the moving ones, even if its weights are frozen. '
        '(slim: no)',
        fixed=True,
    )
    force_resume: bool = option(
        False, 'Resume in --train_dir even if flags or data differ from those it was trained with.'
    )
    recover_from_nonfinite: int = option(
        0,
        'If the loss or a weight becomes NaN or infinite, return to the last good checkpoint and skip the batches '
        'since then, at most this many times; 0 stops instead.',
        lower=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze_batch_norm and not self.trainable_scopes:
            raise InputError(
                '--freeze_batch_norm freezes layers outside --trainable_scopes: give --trainable_scopes too'
            )


@dataclasses.dataclass(frozen=True)
class LogOptions(Options):
    """Logs and TensorBoard."""

    summary: bool = option(
        False,
        "Instead of training, print the net's layers, output shapes and parameter counts. The number of classes "
        "follows --dataset_name (its files are not needed), or is imagenet's.",
    )
    log_every_n_steps: int = option(
        10, 'Steps between log lines and between TensorBoard scalars, starting with the first step.', lower=1
    )
    save_summaries_secs: int = option(
        600,
        'Seconds between histograms and images for TensorBoard. Scalars are written then too, and with each log '
        'line. 0, without --save_summaries_steps: no event files.',
        lower=0,
    )
    save_summaries_steps: int = option(
        0,
        'Steps between histograms and images, in addition to --save_summaries_secs; 0 disables writing by steps.',
        lower=0,
    )
    summarize_histograms: bool = option(False, 'Write histograms of weights and activations.')
    summarize_images: bool = option(
        False,
        'Write a grid of training images as the net sees them and, with each evaluation, the confusion matrix, a '
        'gallery of mistakes and precision-recall curves.',
    )
    profile_steps: str | None = option(
        None,
        "Steps to trace for TensorBoard's profiler, first:last, such as 10:20. Traced steps run one at a time.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.profile_steps is not None and steps_to_profile(self.profile_steps) is None:
            raise InputError(
                f'--profile_steps={self.profile_steps}: must be the first and the last step to trace, counted from 1, '
                'such as 10:20'
            )


def steps_to_profile(text: str | None) -> tuple[int, int] | None:
    """Returns the first and the last step of a value of `--profile_steps`; None if it is not first:last."""
    given = re.fullmatch(r'(\d{1,18}):(\d{1,18})', text or '', re.ASCII)
    if given is None:
        return None
    first, last = int(given[1]), int(given[2])
    return (first, last) if 1 <= first <= last else None


@dataclasses.dataclass(frozen=True)
class TrainEvalOptions(Options):
    """Evaluation during training."""

    eval_every_epochs: float = option(
        0.0, 'Epochs between evaluations; 0 disables evaluation by epochs.', lower=0.0, upper=1e9
    )
    eval_every_steps: int = option(0, 'Steps between evaluations; 0 disables evaluation by steps.', lower=0)
    early_stopping_patience: int | None = option(
        None, 'Stop after this many evaluations in a row without a better --best_metric.', lower=1
    )
    eval_split_name: str | None = option(
        None,
        "Split, or part of one, to evaluate with --eval_every_*. Default: the data set's validation or test split.",
    )
    recall_at: tuple[int, ...] = option((5,), 'Values of k for Recall@k, separated by commas.', lower=1)

    @property
    def is_wanted(self) -> bool:
        """Whether training includes evaluations."""
        return bool(self.eval_every_epochs or self.eval_every_steps)


@dataclasses.dataclass(frozen=True)
class PlanOptions(Options):
    """Estimates for a cluster; these options do not change a run.

    Workers and devices are those of the plan: what says who trains here (`--num_clones`, `--worker_hosts`,
    `--launch_workers`) has no effect on it.
    """

    plan: bool = option(
        False, 'Instead of training, estimate the time that the run would take on a cluster, by a simple model.'
    )
    plan_workers: int = option(1, 'Machines in the cluster.', lower=1, upper=2**20)
    plan_devices_per_worker: int = option(1, 'GPUs per machine.', lower=1, upper=2**20)
    plan_images_per_second: float | None = option(
        None,
        'Required: images/s of one device at its share of the batch, as measured by benchmark_image_classifier.py '
        '--mode=step.',
        above=0.0,
    )
    plan_link_gbits: float = option(
        10.0,
        "Bandwidth of a machine's network link in each direction, in Gbit/s; 10 is 10-gigabit Ethernet.",
        above=0.0,
    )
    # Nominal values of the standards, here and for the link; measured bandwidth is lower.
    plan_bus_gbytes: float = option(
        31.5,
        'Bandwidth between the devices of a machine in each direction, in GB/s; 31.5 is PCIe 4.0 x16 (16 lanes of 16 '
        'GT/s, 128b/130b encoding). NVLink has hundreds.',
        above=0.0,
    )
    plan_latency_us: float = option(50.0, 'Minimum latency of a message between machines, in microseconds.', lower=0.0)
    plan_examples: int | None = option(
        None,
        "Number of training examples, if the files of one of slim's data sets are not available; imagenet has "
        '1281167. Default: counted in --dataset_dir.',
        lower=1,
        upper=2**40,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan and self.plan_images_per_second is None:
            raise InputError(
                '--plan needs --plan_images_per_second, the speed of one device at its share of the batch: measure it '
                'with python benchmark_image_classifier.py --mode=step --batch_size=<share>'
            )
        for field in dataclasses.fields(self):
            if not self.plan and getattr(self, field.name) != field.default:  # without --plan it would train
                raise InputError(
                    f'--{field.name}={getattr(self, field.name)}: has no effect without --plan; leave it out'
                )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that `engine.training.train` depends on."""

    net: NetOptions = NetOptions()
    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    loss: LossOptions = LossOptions()
    length: LengthOptions = LengthOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    log: LogOptions = LogOptions()
    devices: DeviceOptions = DeviceOptions()
    evaluation: TrainEvalOptions = TrainEvalOptions()
    cluster: ClusterOptions = ClusterOptions()
    plan: PlanOptions = PlanOptions()
