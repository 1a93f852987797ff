"""Setup before TensorFlow and Keras are loaded, for programs that import this project's packages.

    prepare()         # in a package's __init__, before any of its modules imports TensorFlow
    load_lightly()    # in scripts

If the program configures logging itself, before or after, its configuration is kept and decides which lines are shown.
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
    """A log level that can be told by identity from an equal level set by the program."""


_LEVEL = _Level(logging.INFO)


def prepare() -> None:
    """Turns on oneDNN, sets Keras' backend to TensorFlow, shows log lines, and hides TensorFlow's output at import.

    Raises:
        InputError: Keras is already imported with another backend.
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
        logger.propagate = False  # the handler forwards to the root's handlers once the program has added some
        logger.setLevel(_LEVEL)


def _is_configured() -> bool:
    """Returns whether the program has set a log level or a handler."""
    root = logging.getLogger()
    chosen = absl_logging.get_verbosity() != absl_logging.WARNING or root.level not in (logging.NOTSET, logging.WARNING)
    return chosen or not all(map(_is_default, root.handlers))


def _is_default(handler: logging.Handler) -> bool:
    """Returns whether a handler comes from `logging.basicConfig()`, which absl calls before its first log line."""
    format = getattr(handler.formatter, '_fmt', None)
    return type(handler) is logging.StreamHandler and handler.level == logging.NOTSET and format == logging.BASIC_FORMAT


class _Handler(logging.Handler):
    """Prints log lines as the scripts do, unless the program configures logging itself."""

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
    """Hides matplotlib and scikit-learn from Keras at import: saves a second and 90 MB that are not used here.

    This project imports them when needed. Only scripts call this: other programs may use Keras' parts that need them.
    """
    _FINDER.hidden = _LOADED_LATE
    _find_quietly()


def _find_quietly() -> None:
    if not {'tensorflow', 'keras'} & set(sys.modules) and _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


class _QuietFinder:
    """Finds TensorFlow or Keras once, as Python does; shows their output at import only if the import fails.

    It is about ten lines on CPU features and absent GPU drivers, too early for `TF_CPP_MIN_LOG_LEVEL` to hide.
    """

    hidden: tuple[str, ...] = ()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns a module spec that loads TensorFlow or Keras quietly; None for any other module."""
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
    """Makes imports of modules that are not loaded yet fail, as if they were not installed."""
    hidden: dict[str, Any] = {module: None for module in modules if module not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for module in hidden:
            del sys.modules[module]


_FINDER: Any = _QuietFinder()
