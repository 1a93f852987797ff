"""Log lines, without TensorFlow's noise, for programs that import this project's packages; scripts have `configs.cli`.

    prepare()      # in the packages' __init__, before a module of theirs imports TensorFlow

Logging that the program has configured itself, before or after, is left as it is and decides what is shown.
"""

import importlib.machinery
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from absl import logging as absl_logging

from support import console


class _Level(int):
    """A level that can be told, by identity, from the same number set by the program."""


_LEVEL = _Level(logging.INFO)


def prepare() -> None:
    """Shows log lines on standard error, and keeps what TensorFlow's libraries write there while they are loaded."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    if not {'tensorflow', 'keras'} & set(sys.modules) and not any(isinstance(f, _QuietFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())
    root, logger = logging.getLogger(), absl_logging.get_absl_logger()
    is_untouched = not logger.handlers and logger.propagate and logger.level in (logging.NOTSET, logging.WARNING)
    if is_untouched and not root.handlers and not _is_configured():
        logger.addHandler(_Handler())
        logger.propagate = False  # the handler hands on to the root's, once a program has given it some
        logger.setLevel(_LEVEL)


def _is_configured() -> bool:
    """Returns whether the program has chosen where log lines go, or which."""
    root = logging.getLogger()
    chosen = absl_logging.get_verbosity() != absl_logging.WARNING or root.level not in (logging.NOTSET, logging.WARNING)
    return chosen or not all(map(_is_default, root.handlers))


def _is_default(handler: logging.Handler) -> bool:
    """Returns whether a handler is as `logging.basicConfig()` makes it, which absl calls before its first log line."""
    format = getattr(handler.formatter, '_fmt', None)
    return type(handler) is logging.StreamHandler and handler.level == logging.NOTSET and format == logging.BASIC_FORMAT


class _Handler(logging.Handler):
    """Prints lines as the scripts do, as long as the program has not said otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(console.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if _is_configured():
            root = logging.getLogger()
            if record.levelno >= root.level or absl_logging.get_absl_logger().level is not _LEVEL:
                root.callHandlers(record)
        else:
            print(self.format(record), file=sys.stderr)


class _QuietFinder:
    """Finds TensorFlow as Python does, once; what its libraries write while they are loaded is shown if that fails."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns how TensorFlow is loaded; None for everything else."""
        if name != 'tensorflow':
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module: ModuleType) -> None:
                with console.kept_stderr():
                    load(module)

            loader: Any = spec.loader
            loader.exec_module = load_quietly
        return spec
