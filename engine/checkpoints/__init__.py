"""Checkpoints: `model.ckpt-<step>` files whose keys are slim's variable names; `python -m engine.checkpoints PATH`.

    checkpoints.save(train_dir, step, {'alexnet_v2/conv1/weights': variable, ...}, max_to_keep=5)
    prefix = checkpoints.find_checkpoint(train_dir)            # the latest one, or the named file
    checkpoints.restore(checkpoints.Checkpoint(prefix), {'alexnet_v2/conv1/weights': variable, ...})

The same kernel writes them as in TensorFlow 1's `Saver` (a table of name -> tensor), so this project reads slim's
checkpoints and slim reads this project's. The object graph of `tf.train.Checkpoint` would only add names that mean
nothing outside Keras. All code that reads a checkpoint also reads `.keras` and `.weights.h5` files.
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
