"""One image through a net: by this project's Predictor, or by the runtime of an exported file alone.

    PYTHONPATH=. python benchmarks/with_runtimes.py predictor --options='{"path": "build/bench/alexnet_v2"}'
    PYTHONPATH=. python benchmarks/with_runtimes.py onnxruntime --options='{"path": "build/bench/alexnet_v2.onnx"}'

The Predictor takes pixels and gives labels: it crops, resizes and scales, and ranks the classes. The runtimes take a
tensor that is prepared already. Each work imports what it needs itself, because its start is measured too.
"""

import os

import numpy as np
from contestant import Turn, repeated, serve

SIZE = 224


def predictor(path: str) -> Turn:
    """Classifies pixels with a checkpoint or an export."""
    from support import library

    library.load_lightly()
    from engine.prediction.predictor import Predictor

    loaded = Predictor(path)
    pixels = np.random.RandomState(0).randint(0, 256, (SIZE, SIZE, 3), np.uint8)
    return repeated(lambda: loaded.predict([pixels]))


def onnxruntime(path: str) -> Turn:
    """Computes an ONNX file's logits of a prepared image."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (taken,) = session.get_inputs()
    image = np.random.RandomState(0).uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)
    return repeated(lambda: session.run(None, {taken.name: image}))


def litert(path: str) -> Turn:
    """Computes a TFLite file's logits of a prepared image, with a thread per core."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=len(os.sched_getaffinity(0)))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken['index'], (1, SIZE, SIZE, 3))
    interpreter.allocate_tensors()
    image = np.random.RandomState(0).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)

    def run() -> np.ndarray:
        interpreter.set_tensor(taken['index'], image)
        interpreter.invoke()
        return interpreter.get_tensor(given['index'])

    return repeated(run)


if __name__ == '__main__':
    serve(__doc__, {'predictor': predictor, 'onnxruntime': onnxruntime, 'litert': litert})
