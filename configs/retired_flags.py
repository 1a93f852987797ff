"""Slim's flags without a meaning today: they are accepted, and a log line names their replacement."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class RetiredFlag:
    """A flag of slim's that has no meaning any more: accepted, and answered with one line.

    Attributes:
        answer: What replaced it.
        refuse: Whether a value other than the default would make the run something else than was asked for.
    """

    name: str
    kind: type
    default: Any
    answer: str
    refuse: bool = False


_INPUT_THREADS = 'the input pipeline tunes its own parallelism'
_WORKERS = (
    'list the workers in --worker_hosts and number them with --task, or start them with --launch_workers; one process '
    'drives all GPUs of a machine (docs/distribution.md)'
)
_NO_SESSIONS = f'there are no sessions: the script computes in its own process; for several processes, {_WORKERS}'

RETIRED_TRAIN_FLAGS = (
    RetiredFlag('master', str, '', _NO_SESSIONS),
    RetiredFlag('clone_on_cpu', bool, False, 'the CPU is used if there is no GPU; --devices=cpu forces it'),
    RetiredFlag('worker_replicas', int, 1, _WORKERS, refuse=True),
    RetiredFlag('num_ps_tasks', int, 0, 'training is synchronous and needs no parameter servers, only workers'),
    RetiredFlag('sync_replicas', bool, False, 'updates over several devices and workers are always synchronous'),
    RetiredFlag('replicas_to_aggregate', int, 1, 'every step uses the gradients of all replicas on all workers'),
    RetiredFlag('num_readers', int, 4, _INPUT_THREADS),
    RetiredFlag('num_preprocessing_threads', int, 4, _INPUT_THREADS),
    RetiredFlag(
        'quantize_delay',
        int,
        -1,
        'TensorFlow 2 has no fake-quant graph rewriting; training is not quantised',
        refuse=True,
    ),
)

RETIRED_EVAL_FLAGS = (
    RetiredFlag('master', str, '', _NO_SESSIONS),
    RetiredFlag('num_preprocessing_threads', int, 4, _INPUT_THREADS),
    RetiredFlag(
        'quantize',
        bool,
        False,
        'TensorFlow 2 has no fake-quant graph rewriting; the checkpoint is evaluated as it is',
        refuse=True,
    ),
)
