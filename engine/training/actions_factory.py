"""Makes the actions of a run from its options.

evaluate = make_evaluation(run, best, signals)
actions = make_actions(run, batches, evaluate, progress, saver)
"""

import math

from configs.evaluation import EvalOptions
from datasets import dataset_factory, decoded
from engine import checkpoints
from engine.evaluation.measure import EvalSource
from engine.evaluation.metrics import clip_recall_at
from engine.evaluation.results import eval_dir
from engine.evaluation.subject import ReplicatedNet
from engine.evaluation.summaries import SummaryWriter
from engine.training.actions import Action, Evaluate, LeftToChief, Log, Save, Scalars, Summarize, log_interval
from engine.training.best_checkpoint import BestCheckpoint
from engine.training.intervals import Interval
from engine.training.setup import Run, cache_mode
from engine.training.signals import TrainingSignals
from engine.training.train_input import TrainInput
from support.progress import Progress


def make_actions(
    run: Run, batches: TrainInput, evaluate: Evaluate | None, progress: Progress, saver: checkpoints.Saver
) -> list[Action]:
    """Makes what happens between steps, in the order in which it happens.

    All workers have the same list, for the chief says by its places what is due.

    Args:
        run: What is trained.
        batches: What it is trained on.
        evaluate: Its evaluation, as `make_evaluation` returns it.
        progress: Where log lines go.
        saver: Writes checkpoints.
    """
    log, options, is_chief = run.config.log, run.config.checkpoint, run.cluster.is_chief
    save_interval = Interval(steps=options.save_interval_steps, seconds=options.save_interval_secs)
    actions: list[Action] = [Log(log, progress)]
    if is_chief:
        is_new = checkpoints.latest_checkpoint(options.train_dir) is None
        at_start = is_new and options.recover_from_nonfinite > 0
        actions.append(Save(save_interval, saver, run.state, progress, at_start))
    else:
        actions.append(LeftToChief(save_interval, Save.on_request))
    if evaluate is not None:
        actions.append(evaluate)
    if log.save_summaries_secs or log.save_summaries_steps:
        interval = Interval(steps=log.save_summaries_steps, seconds=log.save_summaries_secs)
        if is_chief:
            writer = SummaryWriter(options.train_dir)
            scalars = Scalars(log_interval(log), writer)
            summarize = Summarize(interval, log, run.state, run.preprocessing, batches.next_images, writer, scalars)
            actions += [scalars, summarize]
        else:
            actions += [LeftToChief(log_interval(log)), LeftToChief(interval)]
    return actions


def make_evaluation(run: Run, best: BestCheckpoint, signals: TrainingSignals) -> Evaluate | None:
    """Makes the evaluation of a run, if its options ask for one, and opens what it measures on.

    Args:
        run: What is trained.
        best: Keeps the best checkpoint.
        signals: Cut an evaluation short.

    Raises:
        InputError: as `get_dataset` and `decoded.with_cache`; or workers whose data differ.
    """
    config, cluster, dataset, checks = run.config, run.cluster, run.dataset, run.config.evaluation
    if not checks.is_wanted:
        return None
    measured = cluster.after_chief(
        lambda: dataset_factory.get_dataset(
            dataset.name,
            dataset.dataset_dir or None,
            checks.eval_split_name,
            dataset.labels_offset,
            'eval_split_name',
            record_names=dataset.record_names,
        )
    )
    cluster.check_same({'examples to evaluate': measured.identity()})
    measured = decoded.with_cache(measured, cache_mode(config.data), run.preprocessing.source_channels, math.inf)
    epochs = checks.eval_every_epochs * dataset.num_examples / config.data.examples_per_step
    has_averages = run.state.averages is not None
    return Evaluate(
        Interval(steps=checks.eval_every_steps or epochs),
        ReplicatedNet(run.state.model, run.preprocessing, run.strategy, config.devices),
        EvalSource(measured, run.strategy, batch_size=EvalOptions().batch_size, cluster=cluster),
        clip_recall_at(checks.recall_at, measured.num_classes, warn=True),
        run.state,
        SummaryWriter(eval_dir(config.checkpoint.train_dir, measured.split, has_averages)),
        best,
        signals.is_set,
    )
