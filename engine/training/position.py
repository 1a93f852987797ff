"""The position of a run, which a checkpoint keeps beside the variables, so that a run resumes exactly.

position = Position.load(checkpoints.Checkpoint('/tmp/tfmodel/model.ckpt-100'), batch_size=32)
position = position.after(steps=10, batch_size=32)
position.counters()                              # {'global_step': 110, 'images_seen': 3520}
"""

import dataclasses

import numpy as np

from engine import checkpoints


@dataclasses.dataclass(frozen=True)
class Position:
    """How far training has come.

    Attributes:
        step: Steps made.
        images_seen: Examples trained on; the learning rate and the end of training follow from it.
        images_skipped: Examples of the training stream that were passed over, see `engine.training.recovery`.
        recoveries: How often training went back for a value that was not finite.
    """

    step: int = 0
    images_seen: int = 0
    images_skipped: int = 0
    recoveries: int = 0

    @property
    def stream(self) -> int:
        """Position in the training stream, from which the order and all random numbers follow."""
        return self.images_seen + self.images_skipped

    def after(self, steps: int, batch_size: int) -> 'Position':
        """Returns the position `num_steps` later."""
        return dataclasses.replace(self, step=self.step + steps, images_seen=self.images_seen + steps * batch_size)

    def counters(self) -> dict[str, np.int64]:
        """Returns the values a checkpoint stores, by name; counters that are 0 by default are left out."""
        kept = {checkpoints.STEP_KEY: self.step, checkpoints.IMAGES_SEEN_KEY: self.images_seen}
        rare = {checkpoints.IMAGES_SKIPPED_KEY: self.images_skipped, checkpoints.RECOVERIES_KEY: self.recoveries}
        kept |= {name: value for name, value in rare.items() if value}
        return {name: np.int64(value) for name, value in kept.items()}

    @classmethod
    def load(cls, checkpoint: checkpoints.Checkpoint, batch_size: int) -> 'Position':
        """Reads it from a checkpoint; one of slim's has only the step.

        Raises:
            DamagedCheckpointError: it cannot be read.
        """
        step = checkpoint.step
        return cls(
            step,
            checkpoint.read_int(checkpoints.IMAGES_SEEN_KEY, step * batch_size),
            checkpoint.read_int(checkpoints.IMAGES_SKIPPED_KEY, 0),
            checkpoint.read_int(checkpoints.RECOVERIES_KEY, 0),
        )
