"""What is set before TensorFlow and Keras are loaded, for programs that import this project's packages.

    prepare()         # in the packages' __init__, before a module of theirs imports TensorFlow
    load_lightly()    # in scripts

Logging that the program has configured itself, before or after, is left as it is and decides what is shown.
"""

import contextlib
import importlib.machinery
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from absl import logging as absl_logging

from support import console
from support.keras_settings import use_tensorflow
from support.processor import use_onednn

_LOADED_LATE = ('matplotlib', 'sklearn')


class _Level(int):
    """A level that differs, by identity, from the same number set by the program."""


_LEVEL = _Level(logging.INFO)


def prepare() -> None:
    """Turns on oneDNN, makes TensorFlow Keras' backend, shows log lines, and hides what TensorFlow prints when loaded.

    Raises:
        InputError: Keras is imported already, with another backend.
    """
    use_onednn()
    use_tensorflow()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    if sys.argv[:1] == ['-m']:  # `python -m engine.checkpoints` imports the package before the module that it runs
        load_lightly()
    _find_quietly()
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


def load_lightly() -> None:
    """Lets Keras find no matplotlib and scikit-learn while it is loaded: a second and 90 MB that are not used here.

    They are loaded where this project needs them; a program of others may use the parts of Keras that need them.
    """
    _FINDER.hidden = _LOADED_LATE
    _find_quietly()


def _find_quietly() -> None:
    if not {'tensorflow', 'keras'} & set(sys.modules) and _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


class _QuietFinder:
    """Finds TensorFlow or Keras as Python does, once; shows what their libraries write at loading only if it fails.

    Some ten lines about CPU features and absent GPU drivers; `TF_CPP_MIN_LOG_LEVEL` comes too late for them.
    """

    hidden: tuple[str, ...] = ()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns how TensorFlow or Keras is loaded; None for everything else."""
        if name not in ('tensorflow', 'keras'):
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_quietly(module: ModuleType) -> None:
                with console.kept_stderr(), _missing(*self.hidden):
                    load(module)

            loader: Any = spec.loader
            loader.exec_module = load_quietly
        return spec


@contextlib.contextmanager
def _missing(*modules: str) -> Iterator[None]:
    """Lets imports of modules that are not loaded yet fail, as if they were not installed."""
    hidden: dict[str, Any] = {module: None for module in modules if module not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for module in hidden:
            del sys.modules[module]


_FINDER: Any = _QuietFinder()
