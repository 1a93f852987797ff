"""Where training starts: from the newest checkpoint of the run, else from `--checkpoint_path`, else anew.

start = Start(config, cluster, strategy, state)
position = start.restore() or start.begin()
"""

import dataclasses

import tensorflow as tf

from configs.config import TrainConfig
from engine import distribution
from engine.cluster.cluster import Cluster
from engine.position import Position
from engine.reduction import broadcast
from engine.train_state import TrainState, restore_latest, warm_start


@dataclasses.dataclass(frozen=True)
class Start:
    """Gives all workers the values that the chief finds on its disk."""

    config: TrainConfig
    cluster: Cluster
    strategy: tf.distribute.Strategy
    state: TrainState

    def restore(self) -> Position | None:
        """Restores the newest checkpoint of the run; returns where it is, or None if there is none."""

        def restore_on_chief() -> dict[str, int] | None:
            position = restore_latest(self.config, self.state)
            return None if position is None else dataclasses.asdict(position)

        found = self.cluster.on_chief(restore_on_chief)
        if found is None:
            return None
        self._broadcast()
        return Position(**found)

    def begin(self) -> Position:
        """Begins a new run: with the weights of `--checkpoint_path`, if there is one, else with the initial ones."""
        if self.config.checkpoint.checkpoint_path:
            self.cluster.on_chief(lambda: warm_start(self.config, self.state))
            self._broadcast()
        return Position()

    def _broadcast(self) -> None:
        if self.cluster.count > 1:
            with distribution.naming_lost_workers(self.cluster):
                broadcast(self.strategy, list(self.state.saved_variables().values()))
