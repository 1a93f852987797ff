"""Recorded ratios, to detect regressions: `make bench-check`.

    record('benchmarks/recorded.json', tables, describe_machine())        # the medians of the ratios in these tables
    losses = check('benchmarks/recorded.json', tables, ['step'], describe_machine())

Times differ between machines, ratios less so; ratios are recorded per processor all the same, as some have
units for bfloat16 that others lack.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

GUARDED = ('step', 'evaluation', 'prediction')  # prefixes of the tables' keys
TOLERATED_LOSS = 0.15  # largest drop of a ratio's median that is no regression

Tables = Mapping[str, Mapping[str, Any]]
Recorded = dict[str, dict[str, dict[str, float]]]


def record(path: str, tables: Tables, machine: Mapping[str, Any]) -> list[str]:
    """Writes the ratios of guarded tables, and keeps the recorded ones of other tables and machines.

    Returns:
        Recorded ratios that were not measured now; if there are any, nothing is written.
    """
    recorded = _load(path)
    before: Recorded = recorded.get(_name(machine), {}).get('ratios', {})
    now = guarded_ratios(tables, GUARDED)
    lost = [f'{key}: {name}' for key in now for name in before.get(key, {}) if name not in now[key]]
    if not lost:
        recorded[_name(machine)] = {'date': time.strftime('%Y-%m-%d'), 'ratios': {**before, **now}}
        with open(path, 'w') as file:
            file.write(json.dumps(recorded, indent=1) + '\n')
    return lost


def check(path: str, tables: Tables, groups: Iterable[str], machine: Mapping[str, Any]) -> list[str]:
    """Returns a line for each ratio that has fallen below its recorded value.

    Args:
        path: The file that `record` wrote.
        tables: The tables measured now.
        groups: The guarded groups that should have been measured.
        machine: The machine; if nothing is recorded for it, another one's ratios are used, with a message.
    """
    recorded = _load(path)
    name = _name(machine)
    if name not in recorded:
        name = next(iter(recorded), '')
        print(f'{path} has nothing of {_name(machine)}: comparing with {name or "nothing"}', file=sys.stderr)
    ratios: Recorded = recorded.get(name, {}).get('ratios', {})
    absent = [f'{group}: nothing is recorded' for group in groups if not any(key.startswith(group) for key in ratios)]
    asked = {key: of_one for key, of_one in ratios.items() if key.startswith(tuple(groups))}
    return absent + find_losses(asked, tables)


def guarded_ratios(tables: Tables, guarded: Sequence[str]) -> Recorded:
    """Returns median and lowest round of each ratio in tables whose keys begin with one of `guarded`."""
    return {
        key: {
            name: {which: round(ratio[which], 3) for which in ('median', 'low')}
            for name, ratio in table['ratios'].items()
        }
        for key, table in tables.items()
        if key.startswith(tuple(guarded)) and table['ratios']
    }


def find_losses(recorded: Recorded, tables: Tables) -> list[str]:
    """Returns a line for each recorded ratio that is much lower now in every round, or was not measured.

    If one round now reaches the lowest recorded one, the machine is uneven: ratios of bfloat16 vary up to twofold
    without any change, as other programs on the processor use its matrix units.

    Args:
        recorded: Ratios from `guarded_ratios`.
        tables: The tables measured now, each with its `ratios`.
    """
    lines = []
    for key, ratios in recorded.items():
        for name, before in ratios.items():
            ratio = tables[key]['ratios'].get(name) if key in tables else None
            if ratio is None:
                lines.append(f'{key}: {name}: recorded as {before["median"]:.2f}, but not measured now')
            elif ratio['median'] < (1 - TOLERATED_LOSS) * before['median'] and ratio['high'] < before['low']:
                then, now = before['median'], ratio['median']
                lines.append(f'{key}: {name}: {now:.2f}, recorded as {then:.2f}: {1 - now / then:.0%} lower')
    return lines


def _load(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def _name(machine: Mapping[str, Any]) -> str:
    return f'{machine["processor"]}, {machine["cores"]} cores'
