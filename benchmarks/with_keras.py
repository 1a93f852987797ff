"""Plain Keras' `fit` on the same net, and TensorFlow's matrix product: the machine's rate.

    PYTHONPATH=. python benchmarks/with_keras.py fit --options='{"batch_size": 32}'
    PYTHONPATH=. python benchmarks/with_keras.py product --options='{"side": 4096, "dtype": "bfloat16"}'

`fit` has this project's layers, so that their products are the same, and all else as a user of Keras writes it: its
dropout, its RMSprop, its cross-entropy, regularisation as losses; one batch of noise again and again.
"""

import keras
import numpy as np
import tensorflow as tf
from contestant import Turn, repeated, serve

from nets import nets_factory
from nets.layers import Dropout

SIZE, CLASSES = 224, 1000


def fit(batch_size: int) -> Turn:
    """Runs training steps by `Model.fit`."""
    model = keras.models.clone_model(
        nets_factory.make_model('alexnet_v2', CLASSES, weight_decay=4e-5), clone_function=_as_keras_has_it
    )
    optimizer = keras.optimizers.RMSprop(1e-3, rho=0.9, momentum=0.9, epsilon=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(0)
    images = random.standard_normal((batch_size, SIZE, SIZE, 3), np.float32)
    labels = random.integers(0, CLASSES, batch_size, np.int32)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return lambda count: model.fit(batches, epochs=1, steps_per_epoch=count, verbose=0) and None


def _as_keras_has_it(layer: keras.Layer) -> keras.Layer:
    """Copies a layer, with Keras' dropout in place of this project's, which needs random numbers per step."""
    return keras.layers.Dropout(0.5) if isinstance(layer, Dropout) else type(layer).from_config(layer.get_config())


def product(side: int, dtype: str) -> Turn:
    """Multiplies two square matrices."""
    left, right = (tf.cast(tf.random.stateless_normal((side, side), (0, seed)), dtype) for seed in range(2))

    @tf.function(autograph=False)
    def multiply() -> tf.Tensor:
        return tf.matmul(left, right)

    return repeated(lambda: multiply()[0, 0].numpy())


if __name__ == '__main__':
    serve(__doc__, {'fit': fit, 'product': product})
