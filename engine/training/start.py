"""Where a run begins: at its newest checkpoint, else with the weights of `--checkpoint_path`, else anew.

position = resume(run) or begin(run)
"""

import dataclasses

from engine.distributed import distribution
from engine.optim.reduction import broadcast
from engine.training.position import Position
from engine.training.setup import Run
from engine.training.train_state import restore_latest, warm_start


def resume(run: Run) -> Position | None:
    """Restores the run's newest checkpoint in all workers; returns its position, or None if there is none."""
    state = run.state  # in all workers, which make it together

    def restore_on_chief() -> dict[str, int] | None:
        position = restore_latest(run.config.checkpoint, run.config.data, state)
        return None if position is None else dataclasses.asdict(position)

    found = run.cluster.on_chief(restore_on_chief)
    if found is None:
        return None
    _broadcast(run)
    return Position(**found)


def begin(run: Run) -> Position:
    """Begins a new run: with the weights of `--checkpoint_path`, if there is one, else with the initial ones."""
    options, data, state = run.config.checkpoint, run.config.data, run.state
    if options.checkpoint_path:
        run.cluster.on_chief(lambda: warm_start(options, state, data.labels_offset))
        _broadcast(run)
    return Position()


def _broadcast(run: Run) -> None:
    """Gives all workers the values that the chief has read from its disk."""
    if run.cluster.count > 1:
        with distribution.naming_lost_workers(run.cluster):
            broadcast(run.strategy, list(run.state.saved_variables().values()))
