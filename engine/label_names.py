"""The names of classes in a text file, as `--labels_path` gives them.

names = read_label_names('labels.txt', num_classes=1000, labels_offset=1)
"""

import re

from configs.errors import InputError, first_line


def read_label_names(path: str, num_classes: int, labels_offset: int) -> tuple[str, ...]:
    """Reads names, one a line, or `id:name` with the ids 0, 1, 2, ... as in slim's labels.txt.

    Args:
        path: Of the file, UTF-8.
        num_classes: Of the net.
        labels_offset: How many classes of the data set the net leaves out; the file may have their names, too.

    Returns:
        The names of the net's classes.

    Raises:
        InputError: the file cannot be read, or has another number of names.
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            lines = [line.strip() for line in file.read().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'--labels_path={path}: {first_line(error)}') from error
    if len(lines) not in (num_classes, num_classes + labels_offset):
        raise InputError(f'--labels_path={path}: {len(lines)} names; the net has {num_classes} classes')
    if all(re.match(rf'{number}\s*:', line) for number, line in enumerate(lines)):
        lines = [line.partition(':')[2].strip() for line in lines]
    return tuple(lines[len(lines) - num_classes :])
