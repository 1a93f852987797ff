"""Checkpoints: `model.ckpt-<step>` files whose keys are slim's variable names.

    checkpoints.save(train_dir, step, {'alexnet_v2/conv1/weights': variable, ...}, max_to_keep=5)
    prefix = checkpoints.find_checkpoint(train_dir)            # the latest one, or the file that was named
    checkpoints.restore(prefix, {'alexnet_v2/conv1/weights': variable, ...})

They are written by the same kernel as TensorFlow 1's `Saver` wrote them with (a table of name -> tensor), so a
checkpoint of slim's is read like one of ours, and ours have the format that slim reads. The object graph that
`tf.train.Checkpoint` adds would only put names between that mean nothing outside of Keras.
"""

from engine.checkpoints.files import (
    checkpoint_step,
    find_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    new_checkpoints,
    write_text,
)
from engine.checkpoints.names import IMAGES_SEEN_KEY, STEP_KEY, is_training_state
from engine.checkpoints.reading import open_checkpoint, read, read_int
from engine.checkpoints.restoring import Difference, compare, difference_table, restore, warm_start
from engine.checkpoints.saving import save

__all__ = [
    'IMAGES_SEEN_KEY',
    'STEP_KEY',
    'Difference',
    'checkpoint_step',
    'compare',
    'difference_table',
    'find_checkpoint',
    'is_training_state',
    'latest_checkpoint',
    'list_checkpoints',
    'new_checkpoints',
    'open_checkpoint',
    'read',
    'read_int',
    'restore',
    'save',
    'warm_start',
    'write_text',
]
