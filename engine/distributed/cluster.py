"""Communication between the workers of a run, in addition to TensorFlow's collectives.

cluster.gather(value)            # all workers' values, on every worker
cluster.share(value)             # the chief's value, on every worker
cluster.on_chief(compute)        # computed only on the chief, returned on every worker

Every worker has a connection to the chief. Over it the workers decide together between steps. It reports a dead worker
at once and a hanging one soon; TensorFlow's collectives would wait for ever.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from support.errors import InputError, WorkerLostError
from support.tables import brief, format_table

T = TypeVar('T')


class Cluster:
    """A cluster of a single worker, and the interface of larger ones.

    Attributes:
        index: Number of this worker. The chief, which writes the run's files, is 0.
        count: Number of workers.
        addresses: host:port of each worker's TensorFlow server; empty for a single worker.
        local_index: Number of this worker among the workers on this machine, which divide its GPUs.
        local_count: Number of workers on this machine.
    """

    index = 0
    count = 1
    addresses: tuple[str, ...] = ()
    local_index = 0
    local_count = 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the run's files."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all workers, as JSON types; all workers must call this in the same order.

        Raises:
            WorkerLostError: a worker is lost.
        """
        return [value]

    def share(self, value: Any) -> Any:
        """Returns the chief's value on all workers; the other workers' values are ignored."""
        return self.gather(value if self.is_chief else None)[0]

    def on_chief(self, compute: Callable[[], Any]) -> Any:
        """Calls `compute` only on the chief and returns its result on all workers."""
        return self.share(compute() if self.is_chief else None)

    def after_chief(self, compute: Callable[[], T]) -> T:
        """Calls `compute` on the chief first, then on the others, which find the files that it wrote or fetched."""
        if not self.is_chief:
            self.gather(None)
        value = compute()
        if self.is_chief:
            self.gather(None)
        return value

    def any(self, value: bool) -> bool:
        """Returns whether `value` is true on any worker."""
        return any(self.gather(value))

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Raises InputError, with a table of the differences, if the workers' facts differ."""
        refusal = differences(self.gather({name: str(value) for name, value in facts.items()}))
        if refusal:
            raise InputError(refusal)

    def watch(self, progress: Callable[[], int], on_loss: Callable[[str], None]) -> None:
        """Starts watching for workers that make no progress.

        Args:
            progress: Returns a number that grows while this worker makes progress; called from another thread.
            on_loss: Called from another thread with the reason, to end the main thread's waiting.
        """

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Marks a block in which all workers compute together and progress is expected."""
        yield

    def loss(self, within: float = 0.0) -> WorkerLostError | None:
        """Waits up to `within` seconds and returns the failure of another worker, or None."""
        del within
        return None

    def __enter__(self) -> 'Cluster':
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Leaves the cluster; an error ends the other workers too."""


SINGLE_PROCESS = Cluster()


def differences(facts_of_workers: Sequence[Mapping[str, str]]) -> str | None:
    """Returns a table of the facts that differ between workers, or None."""
    names = dict.fromkeys(name for facts in facts_of_workers for name in facts)
    rows = [(name, *(brief(facts.get(name)) for facts in facts_of_workers)) for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return None
    heading = ('', *(f'worker {index}' for index in range(len(facts_of_workers))))
    advice = 'Start all with the same flags, data and versions; only --task, and where files lie, may differ'
    return '\n'.join(['the workers differ:', format_table([heading, *rows], indent='  '), advice])
