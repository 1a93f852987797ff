"""Checkpoints: `model.ckpt-<step>` files whose keys are slim's variable names; `python -m engine.checkpoints PATH`.

    checkpoints.save(train_dir, step, {'alexnet_v2/conv1/weights': variable, ...}, max_to_keep=5)
    prefix = checkpoints.find_checkpoint(train_dir)            # the latest one, or the file that was named
    checkpoints.restore(checkpoints.Checkpoint(prefix), {'alexnet_v2/conv1/weights': variable, ...})

They are written by the same kernel as TensorFlow 1's `Saver` wrote them with (a table of name -> tensor), so a
checkpoint of slim's is read like one of ours, and ours have the format that slim reads. The object graph that
`tf.train.Checkpoint` adds would only put names between that mean nothing outside of Keras. Whatever reads a checkpoint
reads `.keras` and `.weights.h5` files too.
"""

from engine.checkpoints.files import (
    Format,
    checkpoint_of_step,
    checkpoint_step,
    delete_parts,
    find_checkpoint,
    incomplete_checkpoints,
    is_complete,
    latest_checkpoint,
    lies_in,
    list_checkpoints,
    new_checkpoints,
    newest_first,
    recognise,
    set_aside,
)
from engine.checkpoints.keras_files import METADATA, crc32
from engine.checkpoints.names import (
    IMAGES_SEEN_KEY,
    IMAGES_SKIPPED_KEY,
    RECOVERIES_KEY,
    STEP_KEY,
    explain,
    head_names,
    is_average,
    is_counter,
    is_training_state,
)
from engine.checkpoints.reading import Checkpoint, DamagedCheckpointError, compare
from engine.checkpoints.restoring import ANY, describe_state, make_plan, restore, warm_start
from engine.checkpoints.saving import Saver, save
