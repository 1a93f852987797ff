"""Settings needed before TensorFlow and Keras are imported; every package that imports them calls `prepare` first.

prepare()
"""

from support import library
from support.keras_settings import use_tensorflow
from support.processor import use_onednn


def prepare() -> None:
    """Turns on oneDNN, makes TensorFlow Keras' backend, shows log lines, and hides what TensorFlow prints when loaded.

    Raises:
        InputError: Keras is imported already, with another backend.
    """
    use_onednn()
    use_tensorflow()
    library.prepare()
