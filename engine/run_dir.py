"""The folder of a run: checkpoints, `config.cfg`, `model.json`, event files.

prepare(train_dir, spec)            # before training: made, and not of another net
write_config(train_dir, config, spec)
"""

import os
import re

import tensorflow as tf

from configs.config import TrainConfig
from configs.errors import InputError, first_line
from configs.options import to_flagfile
from engine import checkpoints
from engine.model_spec import ModelSpec


def prepare(train_dir: str, spec: ModelSpec) -> None:
    """Makes the folder; refuses one in which another net was trained.

    Raises:
        InputError: it cannot be made, or it holds a run of another net.
    """
    if not train_dir or train_dir.startswith('~'):
        raise InputError(f'--train_dir={train_dir}: name a folder, without ~, which only a shell understands')
    if re.search(r'[\[\\]', train_dir):
        raise InputError(f'--train_dir={train_dir}: TensorFlow reads no checkpoints where a name has [ or \\ in it')
    try:
        tf.io.gfile.makedirs(train_dir)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--train_dir={train_dir}: {first_line(error)}') from error
    before = ModelSpec.load(train_dir)
    if before is not None and checkpoints.latest_checkpoint(train_dir):
        differences = before.contradictions(spec)
        if differences:
            raise InputError(
                f'--train_dir={train_dir} holds a run that differs (there, now): {"; ".join(differences)}; '
                'give the flags of that run, or another --train_dir'
            )


def write_config(train_dir: str, config: TrainConfig, spec: ModelSpec) -> None:
    """Writes config.cfg, a flagfile that repeats the run, and model.json.

    Raises:
        InputError: the folder cannot be written to.
    """
    try:
        checkpoints.write_text(os.path.join(train_dir, 'config.cfg'), to_flagfile(config))
        spec.save(train_dir)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--train_dir={train_dir}: {first_line(error)}') from error
