"""The options of training, each declared once: default, unit, range and help.

Defaults are slim's (research/slim/train_image_classifier.py, eval_image_classifier.py) unless the help says otherwise.
"""

import dataclasses

from configs.data import AugmentOptions, DataOptions
from configs.devices import ClusterOptions, DeviceOptions
from configs.options import Options, option
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class NetOptions(Options):
    """Which net is trained, and in what arithmetic."""

    model_name: str = option('alexnet_v2', 'Net to train. (slim: inception_v3)')
    depth_multiplier: float = option(1.0, 'Scales the width of every layer but the last.', above=0.0, upper=16.0)
    dropout_keep_prob: float | None = option(
        None,
        "Probability that dropout keeps a value; the default is the net's own.",
        above=0.0,
        upper=1.0,
        fixed=True,
    )
    train_image_size: int | None = option(
        None, "Side of the training images in pixels; the default is the net's own.", lower=1, upper=2**13
    )
    global_pool: bool = option(
        False,
        'alexnet_v2: average over all positions before the logits, which images of 227 pixels and more need.',
        fixed=True,
    )
    weight_decay: float = option(
        0.00004,
        'L2 factor: weight_decay * sum(w^2) / 2 for each of the weights that the net decays.',
        lower=0.0,
    )
    weight_decay_exclude: tuple[str, ...] = option(
        (),
        'Regular expressions, separated by commas, found in the names of weights that do not decay; biases never do.',
        regex=True,
    )
    mixed_precision: str = option(
        'float32',
        'float32; tf32: float32, but GPUs may multiply in TensorFloat-32; bfloat16 or float16: layers compute in it, '
        'with float16 under a dynamic loss scale. Variables, logits and loss are float32.',
        choices=('float32', 'tf32', 'bfloat16', 'float16'),
    )
    sync_batch_norm: bool = option(
        False,
        'Normalise with the statistics of the whole batch instead of those of each replica. Moving statistics are '
        "means over the replicas either way, where slim keeps the first clone's.",
        fixed=True,
    )


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(Options):
    """The update rule; the defaults are slim's, which has neither lars nor lamb."""

    optimizer: str = option(
        'rmsprop', 'adadelta, adagrad, adam, ftrl, momentum, sgd, rmsprop, lars or lamb.', fixed=True
    )
    adadelta_rho: float = option(0.95, 'Decay rate of adadelta.', lower=0.0, upper=1.0)
    adagrad_initial_accumulator_value: float = option(0.1, 'Start of the adagrad accumulators.', above=0.0)
    adam_beta1: float = option(0.9, 'Decay of the first moment of adam and lamb.', lower=0.0, upper=1.0)
    adam_beta2: float = option(0.999, 'Decay of the second moment of adam and lamb.', lower=0.0, upper=1.0)
    opt_epsilon: float = option(1.0, 'Epsilon of adadelta, adam and rmsprop (inside its root).', lower=0.0)
    ftrl_learning_rate_power: float = option(-0.5, 'Learning rate power of ftrl.', upper=0.0)
    ftrl_initial_accumulator_value: float = option(0.1, 'Start of the ftrl accumulators.', lower=0.0)
    ftrl_l1: float = option(0.0, 'l1 strength of ftrl.', lower=0.0)
    ftrl_l2: float = option(0.0, 'l2 strength of ftrl.', lower=0.0)
    momentum: float = option(0.9, 'Momentum of the momentum optimizer and of lars.', lower=0.0, upper=1.0)
    rmsprop_momentum: float = option(0.9, 'Momentum of rmsprop.', lower=0.0, upper=1.0)
    rmsprop_decay: float = option(0.9, 'Decay of the mean square of rmsprop, which starts at 1.', lower=0.0, upper=1.0)
    lars_eta: float = option(0.001, 'Trust coefficient of lars.', above=0.0)
    lamb_epsilon: float = option(1e-6, 'Epsilon of lamb, outside its root.', above=0.0)
    trust_ratio_exclude: tuple[str, ...] = option(
        ('biases$', 'beta$', 'gamma$'),
        'lars and lamb: regular expressions, separated by commas, found in the names of variables whose rate is the '
        'learning rate itself, without a trust ratio.',
        regex=True,
    )
    clip_gradient_norm: float = option(0.0, 'Largest global norm of the gradients; 0 does not clip.', lower=0.0)
    gradient_dtype: str = option(
        'float32',
        'In which gradients travel between replicas, and are summed; bfloat16 halves the traffic.',
        choices=('float32', 'bfloat16'),
    )


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(Options):
    """The learning rate as a function of the step."""

    learning_rate_decay_type: str = option(
        'exponential', 'fixed, exponential (a staircase), polynomial, cosine or piecewise.'
    )
    learning_rate: float = option(0.01, 'Initial learning rate.', lower=0.0)
    end_learning_rate: float = option(0.0001, 'Learning rate at the end of polynomial and cosine decay.', lower=0.0)
    scale_learning_rate: str = option(
        'none',
        'Multiply the learning rate and its end by examples a step / --scale_learning_rate_from: linear; by the root '
        'of that: sqrt; none leaves them as they are.',
        choices=('none', 'linear', 'sqrt'),
    )
    scale_learning_rate_from: int = option(
        256, 'Examples a step for which the learning rate is meant.', lower=1, upper=2**20
    )
    learning_rate_decay_factor: float = option(0.94, 'Factor of each exponential or piecewise decay.', above=0.0)
    num_epochs_per_decay: float = option(
        2.0,
        'Epochs after which the rate decays (exponential) or has reached its end (polynomial).',
        above=0.0,
        upper=1e9,
    )
    polynomial_power: float = option(1.0, 'Power of polynomial decay; 1 is a straight line.', above=0.0)
    learning_rate_boundaries: tuple[float, ...] = option(
        (),
        'piecewise: epochs, separated by commas, after each of which the rate is multiplied by the decay factor.',
        lower=0.0,
        upper=1e9,
    )
    warmup_epochs: float = option(0.0, 'Epochs of linear warm-up from 0 to the learning rate.', lower=0.0, upper=1e9)


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """The loss, and what is averaged."""

    label_smoothing: float = option(
        0.0, 'Mixes this share of a uniform distribution into the labels.', lower=0.0, upper=1.0
    )
    moving_average_decay: float | None = option(
        None,
        'Decay of the moving averages of the weights; default or 0: none are kept.',
        lower=0.0,
        upper=1.0,
    )


@dataclasses.dataclass(frozen=True)
class LengthOptions(Options):
    """When training ends. With neither, it goes on until it is stopped (the embedded digits: 15 epochs)."""

    max_number_of_steps: int | None = option(None, 'Stop after this many steps.', lower=1)
    num_epochs: float | None = option(None, 'Stop after this many passes over the split.', above=0.0, upper=1e9)


@dataclasses.dataclass(frozen=True)
class CheckpointOptions(Options):
    """Where training starts, and what it leaves behind."""

    train_dir: str = option(
        '/tmp/tfmodel/', 'Folder of checkpoints, config.cfg, model.json and event files.', path=True
    )
    save_interval_secs: int = option(600, 'Seconds between checkpoints; 0: only by steps and at the end.', lower=0)
    save_interval_steps: int = option(0, 'Steps between checkpoints; 0: only by time and at the end.', lower=0)
    max_checkpoints_to_keep: int = option(5, 'Checkpoints kept; older ones are deleted; 0 keeps all.', lower=0)
    keep_checkpoint_every_n_hours: float | None = option(
        None, 'Keep one checkpoint for every so many hours for ever, beside the latest ones.', above=0.0, upper=1e6
    )
    best_metric: str = option(
        'accuracy',
        'accuracy or recall_at_<k>: the checkpoint with the highest one that --eval_every_* has measured is kept in '
        '<train_dir>/best; none keeps none.',
    )
    checkpoint_path: str | None = option(
        None,
        'Checkpoint, .keras or .weights.h5 file, or folder of checkpoints, whose weights a new run starts from '
        '(fine-tuning).',
        path=True,
    )
    checkpoint_exclude_scopes: tuple[str, ...] = option(
        (), 'Prefixes of variable names, separated by commas, that --checkpoint_path does not restore.'
    )
    checkpoint_scope: str | None = option(
        None, 'Prefix that is removed from all names in --checkpoint_path, such as tower_0.'
    )
    ignore_missing_vars: bool = option(False, 'Warn instead of failing when --checkpoint_path lacks a variable.')
    trainable_scopes: tuple[str, ...] = option(
        (), 'Scopes, separated by commas, whose variables are trained; the default is all.', fixed=True
    )
    freeze_batch_norm: bool = option(
        False,
        'Batch normalisation outside of --trainable_scopes keeps its moving statistics and normalises with them. '
        'Otherwise it normalises with those of the batch and keeps updating them, frozen weights or not. (slim: no)',
        fixed=True,
    )
    force_resume: bool = option(
        False, 'Go on in --train_dir although flags or data are not those that it was trained with before.'
    )
    recover_from_nonfinite: int = option(
        0,
        'When the loss or a weight is not finite any more: go back to the last good checkpoint and skip the batches '
        'since, at most so many times; 0 stops.',
        lower=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze_batch_norm and not self.trainable_scopes:
            raise InputError('--freeze_batch_norm: freezes what lies outside of --trainable_scopes; give these too')


@dataclasses.dataclass(frozen=True)
class LogOptions(Options):
    """What is printed and what TensorBoard gets."""

    summary: bool = option(
        False,
        "Instead of training, print the net's layers, the shapes of their outputs and their numbers of parameters. The "
        "number of classes is that of --dataset_name, whose files need not be there; without it, imagenet's.",
    )
    log_every_n_steps: int = option(
        10, "Steps between log lines, and between TensorBoard's points; the first step has both.", lower=1
    )
    save_summaries_secs: int = option(
        600,
        'Seconds between histograms and images for TensorBoard. Scalars are written with these and with each log line. '
        '0, without --save_summaries_steps: no event files at all.',
        lower=0,
    )
    save_summaries_steps: int = option(0, 'The same in steps, beside the seconds; 0: only by time.', lower=0)
    summarize_histograms: bool = option(False, 'Write histograms of weights and activations.')
    summarize_images: bool = option(False, 'Write a grid of training images as the net sees them.')


@dataclasses.dataclass(frozen=True)
class TrainEvalOptions(Options):
    """Evaluation in the training process."""

    eval_every_epochs: float = option(
        0.0, 'Evaluate after every so many epochs; 0: not by epochs.', lower=0.0, upper=1e9
    )
    eval_every_steps: int = option(0, 'Evaluate after every so many steps; 0: not by steps.', lower=0)
    early_stopping_patience: int | None = option(
        None, 'Stop when so many evaluations in a row have not raised --best_metric.', lower=1
    )
    eval_split_name: str | None = option(
        None, "Split, or part of one, that --eval_every_* measures; default: the data set's own, validation or test."
    )
    recall_at: tuple[int, ...] = option((5,), 'Values of k of Recall@k, separated by commas.', lower=1)

    @property
    def is_wanted(self) -> bool:
        """Whether training includes evaluations."""
        return bool(self.eval_every_epochs or self.eval_every_steps)


@dataclasses.dataclass(frozen=True)
class PlanOptions(Options):
    """What is planned for; nothing of it changes a run.

    Workers and devices are those of the plan: what says who trains here (`--num_clones`, `--worker_hosts`,
    `--launch_workers`) has no effect on it.
    """

    plan: bool = option(False, 'Print what the run would take on a cluster, by a simple model, instead of training.')
    plan_workers: int = option(1, 'Machines of the cluster.', lower=1, upper=2**20)
    plan_devices_per_worker: int = option(1, 'GPUs of each machine.', lower=1, upper=2**20)
    plan_images_per_second: float | None = option(
        None,
        'Needed: images/s of one device at its share of the batch, as benchmark_image_classifier.py --mode=step '
        'measures it.',
        above=0.0,
    )
    plan_link_gbits: float = option(
        10.0, "Bandwidth of a machine's network link each way, in Gbit/s; 10 is 10-gigabit Ethernet.", above=0.0
    )
    # Nominal values of the standards, here and for the link; measured bandwidth is lower.
    plan_bus_gbytes: float = option(
        31.5,
        'Bandwidth between the devices of one machine each way, in GB/s; 31.5 is PCIe 4.0 with 16 lanes: 16 GT/s each, '
        '128 bits in 130. NVLink has hundreds.',
        above=0.0,
    )
    plan_latency_us: float = option(50.0, 'Microseconds that a message between machines takes at least.', lower=0.0)
    plan_examples: int | None = option(
        None,
        "Training examples, where the files of one of slim's data sets are not at hand: imagenet has 1281167. "
        'Default: those of --dataset_dir.',
        lower=1,
        upper=2**40,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan and self.plan_images_per_second is None:
            raise InputError(
                '--plan needs --plan_images_per_second, that of one device at its share of the batch: measure it with '
                'python benchmark_image_classifier.py --mode=step --batch_size=<share>'
            )
        for field in dataclasses.fields(self):
            if not self.plan and getattr(self, field.name) != field.default:  # without --plan it would train
                raise InputError(f'--{field.name}={getattr(self, field.name)}: of no use without --plan; leave it out')


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
