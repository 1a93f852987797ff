"""Giving variables the values of a checkpoint, and saying what does not fit."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import tensorflow as tf
from absl import logging

from configs.errors import InputError
from engine.checkpoints.files import find_checkpoint
from engine.checkpoints.names import is_training_state
from engine.checkpoints.reading import Reader, open_checkpoint, read


@dataclasses.dataclass(frozen=True)
class Difference:
    """A variable for which checkpoint and net do not agree; a shape is None where it is missing."""

    name: str
    wanted: tuple[int, ...] | None
    found: tuple[int, ...] | None


def compare(reader: Reader, shapes: Mapping[str, Sequence[int]], ignore: Callable[[str], bool]) -> list[Difference]:
    """Lists the variables that the checkpoint lacks, has in another shape, or has beyond those asked for.

    Args:
        reader: Of the checkpoint.
        shapes: Shape of each variable that is wanted, by name.
        ignore: Says of a name in the checkpoint that nobody asks for whether that is as it should be.
    """
    found = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    names = [*wanted, *sorted(name for name in found if name not in wanted and not ignore(name))]
    rows = [Difference(name, wanted.get(name), found.get(name)) for name in names]
    return [row for row in rows if row.wanted != row.found]


def difference_table(differences: Iterable[Difference]) -> str:
    """Returns the table of what differs, a line a variable."""
    rows = [('variable', 'in the net', 'in the checkpoint')]
    rows += [(row.name, _shape(row.wanted), _shape(row.found)) for row in differences]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return '\n'.join(
        '  ' + '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return 'missing' if shape is None else 'x'.join(map(str, shape)) or 'scalar'


def restore(prefix: str, variables: Mapping[str, tf.Variable], unused: Iterable[str] = ()) -> None:
    """Assigns every variable its value from the checkpoint; all are checked before any is changed.

    Args:
        prefix: The checkpoint.
        variables: What to assign, by the name in the checkpoint.
        unused: Names that the checkpoint may have beside these, besides counters, slots and moving averages.

    Raises:
        InputError: the checkpoint is missing, damaged, or of another net (with a table of what differs).
    """
    reader = open_checkpoint(prefix)
    shapes = {name: variable.shape for name, variable in variables.items()}
    expected = set(unused)
    differences = compare(reader, shapes, ignore=lambda name: is_training_state(name) or name in expected)
    if differences:
        raise InputError(f'{prefix} is not of this net or run; what differs:\n{difference_table(differences)}')
    values = {name: read(reader, prefix, name) for name in variables}
    for name, variable in variables.items():
        variable.assign(values[name])


def warm_start(
    path: str, variables: Mapping[str, tf.Variable], exclude_scopes: Sequence[str], ignore_missing: bool
) -> None:
    """Assigns weights from a checkpoint for fine-tuning; neither optimizer slots nor the step, as slim does.

    Args:
        path: A checkpoint, or a folder, whose latest is taken.
        variables: The net's variables by name.
        exclude_scopes: Prefixes of names that keep their initial values.
        ignore_missing: Warn, instead of failing, of variables that the checkpoint lacks.

    Raises:
        InputError: no checkpoint, nothing to restore, a variable that is missing or has another shape.
    """
    prefix = find_checkpoint(path)
    reader = open_checkpoint(prefix)
    wanted = {name: v for name, v in variables.items() if not name.startswith(tuple(exclude_scopes))}
    differences = compare(reader, {name: v.shape for name, v in wanted.items()}, ignore=lambda name: True)
    missing = [row.name for row in differences if row.found is None]
    if (not ignore_missing and missing) or any(row.found is not None for row in differences):
        raise InputError(
            f'--checkpoint_path={path}: {prefix} does not fit the net; what differs:\n{difference_table(differences)}\n'
            'Leave variables out with --checkpoint_exclude_scopes, or missing ones with --ignore_missing_vars'
        )
    for name in missing:
        logging.warning('%s is not in %s and keeps its initial value', name, prefix)
    restored = [name for name in wanted if name not in missing]
    if not restored:
        raise InputError(f'--checkpoint_path={path}: {prefix} has none of the variables of the net')
    values = {name: read(reader, prefix, name) for name in restored}
    for name, value in values.items():
        variables[name].assign(value)
    logging.info(
        'fine-tuning from %s: %d variables restored, %d excluded',
        prefix,
        len(restored),
        len(variables) - len(wanted),
    )
