"""What must be set before TensorFlow and Keras are imported: every package that imports them calls it first.

prepare()
"""

from configs import library
from configs.keras_settings import use_tensorflow
from configs.processor import use_onednn


def prepare() -> None:
    """Lets TensorFlow compute with oneDNN and without noise, Keras with TensorFlow, and log lines be seen.

    Raises:
        InputError: Keras is imported already, with another backend.
    """
    use_onednn()
    use_tensorflow()
    library.prepare()
