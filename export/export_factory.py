"""The table of formats that a net can be exported to."""

import dataclasses
from collections.abc import Callable

from configs.errors import unknown_name
from export import keras_file, slim, weights_h5
from export.source import Source


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        ending: Of the file's name; empty for a folder.
        write: Writes a net to a path that does not exist.
        verify: Reads it back; returns what was compared, a line each; raises InputError if something differs.
    """

    ending: str
    write: Callable[[Source, str], None]
    verify: Callable[[Source, str], list[str]]


FORMATS = {
    'slim': ExportFormat(slim.ENDING, slim.write, slim.verify),
    'keras': ExportFormat(keras_file.ENDING, keras_file.write, keras_file.verify),
    'weights.h5': ExportFormat(weights_h5.ENDING, weights_h5.write, weights_h5.verify),
}


def get_format(name: str) -> ExportFormat:
    """Looks up a format; raises InputError with the valid names if there is none."""
    if name not in FORMATS:
        raise unknown_name('format', name, FORMATS)
    return FORMATS[name]
