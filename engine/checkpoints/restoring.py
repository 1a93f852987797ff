"""Restores variables from a checkpoint, with a table that shows the status of each.

restore(checkpoint, variables)                  # all variables, or an error: to resume a run
warm_start(path, variables, ...)               # the variables that fit, with a table: to fine-tune
"""

import collections
import dataclasses
import enum
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from engine.checkpoints.files import find_checkpoint
from engine.checkpoints.names import explain, head_names, is_average, is_slot, is_training_state, optimizer_of
from engine.checkpoints.reading import Checkpoint
from support.errors import InputError
from support.tables import format_table

Shape = tuple[int, ...]
ANY = -1  # an unknown size


class RestoreStatus(enum.StrEnum):
    """Whether a variable is restored, and if not, why."""

    RESTORED = 'restored'
    EXCLUDED = 'excluded'
    OTHER_SHAPE = 'shape differs'
    MISSING = 'missing'
    UNUSED = 'unused'


@dataclasses.dataclass(frozen=True)
class Row:
    """A variable of the net, of the checkpoint, or of both.

    Attributes:
        name: Its name in the checkpoint.
        wanted: Its shape in the net, or None if the net lacks it.
        found: Its shape in the checkpoint, or None if the checkpoint lacks it.
        status: Whether it is restored, and if not, why.
        note: The flag that causes the status, or that would allow restoring without this variable.
        stops: Whether this variable prevents restoring altogether.
    """

    name: str
    wanted: Shape | None
    found: Shape | None
    status: RestoreStatus
    note: str = ''
    stops: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """The status of every variable of a net and a checkpoint.

    Attributes:
        rows: The net's variables in order, then the variables that only the checkpoint has.
        training_state: Names of unused counters, slots and moving averages.
    """

    rows: tuple[Row, ...]
    training_state: tuple[str, ...]

    def names(self, status: RestoreStatus) -> list[str]:
        """Returns the names of the variables with a status."""
        return [row.name for row in self.rows if row.status is status]

    @property
    def stopping(self) -> list[Row]:
        """The rows that prevent restoring."""
        return [row for row in self.rows if row.stops]

    def differences(self) -> str:
        """Returns a table of the variables that do not fit, one per line, with both shapes."""
        differing = [row for row in self.rows if row.stops or row.status is RestoreStatus.UNUSED]
        rows = [('variable', 'in the net', 'in the checkpoint')]
        rows += [(row.name, _text(row.wanted), _text(row.found)) for row in differing]
        return format_table(rows, indent='  ')

    def table(self) -> str:
        """Returns a table of all variables, one per line; unused training state shares one line."""
        rows = [('variable', 'in the net', 'in the checkpoint', 'state', 'because of, or allowed by')]
        rows += [(row.name, _text(row.wanted), _text(row.found), str(row.status), row.note) for row in self.rows]
        if self.training_state:
            what = f'training state: {describe_state(self.training_state)}'
            rows.append((what, '', '', str(RestoreStatus.UNUSED), 'weights alone are taken'))
        return format_table(rows, indent='  ')


def _text(shape: Shape | None) -> str:
    if shape is None:
        return 'missing'
    return 'x'.join('?' if size == ANY else str(size) for size in shape) or 'scalar'


def describe_state(names: Iterable[str]) -> str:
    """Summarises counters, slots and averages: `16 Momentum, 16 ExponentialMovingAverage, global_step`."""
    kinds = collections.Counter(name.rpartition('/')[2] if '/' in name else name for name in sorted(names))
    return ', '.join(f'{number} {kind}' if number > 1 else kind for kind, number in kinds.items())


def make_plan(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Shape],
    *,
    exclude_scopes: Sequence[str] = (),
    ignore_missing: bool = False,
    keep_other_head: bool = False,
    unused: Iterable[str] = (),
) -> Plan:
    """Decides for every variable whether it is restored.

    Args:
        wanted: Shape of each variable of the net, by its name in the checkpoint, from the first layer to the last.
        exclude_scopes: Prefixes of names that are not restored.
        ignore_missing: Whether variables may be missing from the checkpoint.
        keep_other_head: Whether a last layer with another number of classes may keep its values.
        unused: Further names that the checkpoint may have; they are not reported.
    """
    found = checkpoint.shapes
    head = head_of_another_size(wanted, found) if keep_other_head else {}
    not_restored = '--checkpoint_exclude_scopes'

    def row(name: str, shape: Shape) -> Row:
        make = functools.partial(Row, name, shape, found.get(name))
        scope = next((scope for scope in exclude_scopes if name.startswith(scope)), None)
        if scope is not None:
            return make(RestoreStatus.EXCLUDED, f'{not_restored}={scope}')
        if name not in found:
            return make(RestoreStatus.MISSING, '--ignore_missing_vars', stops=not ignore_missing)
        if name in head:
            return make(RestoreStatus.OTHER_SHAPE, 'other classes: it keeps its initial value')
        if found[name] != shape:
            return make(RestoreStatus.OTHER_SHAPE, f'{not_restored}={name}', stops=True)
        return make(RestoreStatus.RESTORED)

    rows = [row(name, shape) for name, shape in wanted.items()]
    left = sorted(set(found) - set(wanted) - set(unused))
    rows += [Row(name, None, found[name], RestoreStatus.UNUSED) for name in left if not is_training_state(name)]
    return Plan(tuple(rows), tuple(name for name in left if is_training_state(name)))


def head_of_another_size(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes of the checkpoint's head by name if only the number of classes differs, else empty."""
    shapes = _without_suffixes(wanted)
    head = [name for name in head_names(wanted) if name in found]
    if not head or any(len(found[name]) != len(shapes[name]) or not shapes[name] for name in head):
        return {}
    same_but_classes = all(found[name][:-1] == shapes[name][:-1] for name in head)
    other_classes = all(found[name][-1] != shapes[name][-1] for name in head)
    return {name: found[name] for name in head} if same_but_classes and other_classes else {}


def _without_suffixes(wanted: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the wanted shapes, with the name of each wanted average also without its suffix."""
    averaged = {name.rpartition('/')[0]: shape for name, shape in wanted.items() if is_average(name)}
    return {**averaged, **wanted}


def fitting_labels_offset(wanted: Mapping[str, Shape], found: Mapping[str, Shape], labels_offset: int) -> int | None:
    """Returns the other `--labels_offset` if the last layer would fit with it, else None.

    Args:
        wanted: Shapes of the net's variables, for the data set's number of classes minus `labels_offset`.
        found: Shapes of the checkpoint's variables.
        labels_offset: The given value: 0, or 1 to leave out the background class.
    """
    classes, other = _classes(wanted, found)
    fitting = labels_offset + classes - other
    return fitting if classes != other and fitting in (0, 1) else None


def _classes(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> tuple[int, int]:
    """Returns the number of classes in the net and in the checkpoint, or (0, 0) if they agree."""
    head = head_of_another_size(wanted, found)
    name = next(iter(head), None)
    return (0, 0) if name is None else (_without_suffixes(wanted)[name][-1], head[name][-1])


def restore(
    checkpoint: Checkpoint,
    variables: Mapping[str, tf.Variable],
    unused: Iterable[str] = (),
    *,
    optional: Iterable[str] = (),
    labels_offset: int | None = None,
) -> Plan:
    """Assigns all variables their values from a checkpoint; checks all before it changes any.

    Args:
        variables: Variables to assign, by their names in the checkpoint.
        unused: Further names that the checkpoint may have, besides counters, slots and moving averages.
        optional: Names of variables that keep their values if the checkpoint lacks them.
        labels_offset: The data set's; if given, the error for other classes names the offset that fits.

    Returns:
        The plan, with the names of unused training state.

    Raises:
        DamagedCheckpointError: the checkpoint is damaged.
        InputError: it belongs to another net or run (with a table of differences), or to another optimizer.
    """
    absent = set(optional) - set(checkpoint.shapes)
    variables = {name: variable for name, variable in variables.items() if name not in absent}
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    plan = make_plan(checkpoint, wanted, unused=unused)
    if plan.stopping or plan.names(RestoreStatus.UNUSED):
        _refuse_other_slots(plan, checkpoint, wanted)
        reason = _reason(plan, checkpoint, wanted, labels_offset)
        raise InputError(f'{checkpoint.prefix} {reason}; what differs:\n{plan.differences()}')
    values = {name: _value(checkpoint, name, variable) for name, variable in variables.items()}
    for name, variable in variables.items():
        variable.assign(values[name])
    return plan


def _value(checkpoint: Checkpoint, name: str, variable: tf.Variable) -> np.ndarray:
    """Reads a variable's value and converts it to the variable's dtype, as other programs may store another."""
    value, dtype = checkpoint.read(name), variable.dtype.as_numpy_dtype
    if value.dtype.kind not in 'fiub' and value.dtype != tf.bfloat16.as_numpy_dtype:
        raise InputError(f'{checkpoint.prefix}: {name} holds {value.dtype}, not numbers, so it is not of this net')
    return value if value.dtype == dtype else value.astype(dtype)


def _refuse_other_slots(plan: Plan, checkpoint: Checkpoint, wanted: Mapping[str, Shape]) -> None:
    """Raises a one-line InputError, instead of a table, if a run cannot resume because its optimizer differs."""
    missing = plan.names(RestoreStatus.MISSING)
    if len(missing) < len([*plan.stopping, *plan.names(RestoreStatus.UNUSED)]) or not all(map(is_slot, missing)):
        return
    prefix = checkpoint.prefix
    before, now = optimizer_of(checkpoint.shapes), optimizer_of(wanted)
    anew = f'or start a new run from its weights in another --train_dir: --checkpoint_path={prefix}'
    if before == now:
        advice = (
            f'it lacks slots of --optimizer={now}: {describe_state(missing)}; give the --trainable_scopes of its run'
        )
    elif before == 'sgd':
        advice = f'it lacks the slots of --optimizer={now}; resume with --optimizer=sgd, which needs none'
    else:
        advice = f'it has the slots of --optimizer={before or "another"}, not of {now}; resume with that of its run'
    raise InputError(f'{prefix} cannot be resumed: {advice}, {anew}')


def _reason(plan: Plan, checkpoint: Checkpoint, wanted: Mapping[str, Shape], labels_offset: int | None) -> str:
    missing = plan.names(RestoreStatus.MISSING)
    has_averages = any(map(is_average, checkpoint.shapes))
    if missing and len(missing) == len(plan.stopping) and all(map(is_average, missing)) and not has_averages:
        return 'has no moving averages, which --moving_average_decay asks for: leave it out'
    found = checkpoint.shapes
    classes, other = _classes(wanted, found)
    if labels_offset is not None and classes != other:
        fitting = fitting_labels_offset(wanted, found, labels_offset)
        problem = f'has {other} classes, and the data set {classes} with --labels_offset={labels_offset}'
        advice = 'choose the data set that it was trained on' if fitting is None else f'give --labels_offset={fitting}'
        return f'{problem}: {advice}'
    hint = explain(found, list(wanted))
    return f'is not of this net or run: {hint}' if hint else 'is not of this net or run'


def warm_start(
    path: str,
    variables: Mapping[str, tf.Variable],
    exclude_scopes: Sequence[str],
    ignore_missing: bool,
    labels_offset: int = 0,
    scope: str | None = None,
) -> None:
    """Assigns weights from a checkpoint for fine-tuning, without optimizer slots and step, as in slim.

    Unlike in slim, a last layer with another number of classes keeps its initial value, with a warning.

    Args:
        path: A checkpoint, or a folder, which stands for its latest.
        variables: The net's variables by name, from the first layer to the last.
        exclude_scopes: Prefixes of names that keep their initial values.
        ignore_missing: Whether variables missing from the checkpoint cause a warning instead of an error.
        labels_offset: The data set's, for the warning.
        scope: Prefix to remove from all names in the checkpoint.

    Raises:
        InputError: there is no checkpoint or nothing to restore, or a variable is missing or has another shape.
    """
    checkpoint = Checkpoint(find_checkpoint(path), scope)
    prefix = checkpoint.prefix
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    hint = explain(checkpoint.shapes, list(wanted))
    because = f': {hint}' if hint else ''
    plan = make_plan(
        checkpoint, wanted, exclude_scopes=exclude_scopes, ignore_missing=ignore_missing, keep_other_head=True
    )
    if plan.stopping:
        raise InputError(
            f'--checkpoint_path={path}: {prefix} does not fit the net{because}; what differs:\n{plan.differences()}\n'
            f'{_flags_that_allow(plan.stopping)}'
        )
    restored = plan.names(RestoreStatus.RESTORED)
    if not restored:
        raise InputError(f'--checkpoint_path={path}: {prefix} has none of the variables of the net{because}')
    values = {name: _value(checkpoint, name, variables[name]) for name in restored}
    for name, value in values.items():
        variables[name].assign(value)
    _log_plan(prefix, plan, wanted, labels_offset)


def _flags_that_allow(rows: Sequence[Row]) -> str:
    others = [row.name for row in rows if row.status is RestoreStatus.OTHER_SHAPE]
    missing = [row.name for row in rows if row.status is RestoreStatus.MISSING]
    ways = [f'leave out what has another shape with --checkpoint_exclude_scopes={",".join(others)}'] if others else []
    ways += ['let what is missing keep its initial value with --ignore_missing_vars'] if missing else []
    return f'To go on, {", and ".join(ways)}'


def _log_plan(prefix: str, plan: Plan, wanted: Mapping[str, Shape], labels_offset: int) -> None:
    counts = collections.Counter(row.status for row in plan.rows)
    summary = ', '.join(f'{number} {status}' for status, number in counts.items())
    logging.info('fine-tuning from %s: %s\n%s', prefix, summary, plan.table())
    for row in plan.rows:
        if row.status is RestoreStatus.MISSING:
            logging.warning('%s is not in %s and keeps its initial value', row.name, prefix)
        elif row.status is RestoreStatus.OTHER_SHAPE:
            logging.warning(
                '%s is %s in the net and %s in %s: it keeps its initial value',
                *(row.name, _text(row.wanted), _text(row.found), prefix),
            )
    found = {
        row.name: row.found for row in plan.rows if row.found is not None and row.status is not RestoreStatus.EXCLUDED
    }
    fitting = fitting_labels_offset(wanted, found, labels_offset)
    if fitting is not None:
        logging.warning('with --labels_offset=%d instead of %d its last layer would fit', fitting, labels_offset)
