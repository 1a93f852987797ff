"""Communication between the workers of a run, beside TensorFlow's collectives.

cluster.gather(value)            # everybody's values, in everybody
cluster.share(value)             # the chief's
cluster.on_chief(compute)        # computed there alone

Every worker has a connection to the chief. Over it they decide together between steps, and learn at once who has died,
and soon who hangs: TensorFlow's collectives would wait for ever.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from support.errors import InputError, WorkerLostError
from support.tables import brief, format_table

T = TypeVar('T')


class Cluster:
    """One worker alone; what is asked of several, it answers as a cluster of one.

    Attributes:
        index: Number of this worker. The chief, which writes the run's files, is 0.
        count: How many workers there are.
        addresses: host:port of each worker's TensorFlow server; empty for one alone.
        local_index: Which it is of the workers on this machine that divide its GPUs.
        local_count: How many these are.
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
        """Returns the values of all workers, which all call this in the same order; of JSON's types.

        Raises:
            WorkerLostError: one of them is gone.
        """
        return [value]

    def share(self, value: Any) -> Any:
        """Returns the chief's value in all workers; nobody looks at the others'."""
        return self.gather(value if self.is_chief else None)[0]

    def on_chief(self, compute: Callable[[], Any]) -> Any:
        """Returns in all workers what `compute` returns on the chief, where alone it is called."""
        return self.share(compute() if self.is_chief else None)

    def after_chief(self, compute: Callable[[], T]) -> T:
        """Calls `compute` on the chief first, so that the others find what it wrote or fetched."""
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
        """Raises if the workers' facts differ.

        Raises:
            InputError: a table of what differs.
        """
        refusal = differences(self.gather({name: str(value) for name, value in facts.items()}))
        if refusal:
            raise InputError(refusal)

    def watch(self, progress: Callable[[], int], on_loss: Callable[[str], None]) -> None:
        """Starts watching for workers that make no progress.

        Args:
            progress: A number that grows while this worker makes progress; another thread asks for it.
            on_loss: Another thread calls it with what has happened, so that the main one waits no more.
        """

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Marks a block in which all workers compute together, so that progress is expected."""
        yield

    def loss(self, within: float = 0.0) -> WorkerLostError | None:
        """Waits up to `within` seconds and returns the failure of another worker, or None."""
        del within
        return None

    def __enter__(self) -> 'Cluster':
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Leaves; an error ends the others too."""


SINGLE_PROCESS = Cluster()


def differences(facts_of_workers: Sequence[Mapping[str, str]]) -> str | None:
    """Returns a table of the facts that are not the same in all workers, or None."""
    names = dict.fromkeys(name for facts in facts_of_workers for name in facts)
    rows = [(name, *(brief(facts.get(name)) for facts in facts_of_workers)) for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return None
    heading = ('', *(f'worker {index}' for index in range(len(facts_of_workers))))
    advice = 'Start all with the same flags, data and versions; only --task, and where files lie, may differ'
    return '\n'.join(['the workers differ:', format_table([heading, *rows], indent='  '), advice])
