"""The workflow of `predict_image_classifier.py`: finds the images, loads the net, writes the predictions.

failures = predict(make_config(PredictConfig, images=('photos',), checkpoint_path='/tmp/tfmodel'))
"""

import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from absl import logging

from configs import early
from configs.prediction import PredictConfig, PredictOptions, PredictOutputOptions
from datasets.files import LeftOut
from datasets.text_files import write_text
from engine.classifiers import Classifier
from engine.classifiers.loading import find_runtime
from engine.prediction.formats import FORMATS
from engine.prediction.image_files import Image, find_images, split_input
from engine.prediction.predictor import Prediction, Predictor
from support import console
from support.atomic import check_name
from support.errors import InputError, first_line
from support.progress import Progress

if TYPE_CHECKING:
    from engine.prediction.picture import PredictionPicture

PICTURE_ENDINGS = ('.png', '.jpg', '.pdf', '.svg')
_LONG = 100  # number of images from which progress is shown


def predict(config: PredictConfig) -> int:
    """Classifies all images of a config and writes the predictions.

    Returns:
        The number of unusable images; their errors are written in place of predictions.

    Raises:
        InputError: any other error that the user can fix.
    """
    options, output = config.prediction, config.output
    early.check_combinations(config)
    _check_places(options, output)
    if output.explain != 'none' and find_runtime(options.checkpoint_path):
        raise InputError(
            f'--explain={output.explain}: {options.checkpoint_path} is an exported file, which gives no gradients; use '
            'the checkpoint that it was made from'
        )
    named = _find(options.images)
    predictor = Predictor(
        options.checkpoint_path,
        config.net,
        config.foreign,
        averages=bool(options.moving_average_decay),
        temperature=options.temperature,
        mixed_precision=options.mixed_precision,
        devices=options.devices,
        batch_size=options.batch_size,
        apply_exif_orientation=options.apply_exif_orientation,
    )
    picture = _make_picture(predictor.classifier, output) if output.visualize else None
    failures = 0

    def predictions() -> Iterator[Prediction]:
        nonlocal failures
        for prediction, image in predictor.stream(named, output.top_k):
            failures += prediction.error is not None
            if picture is not None:
                picture.add(prediction, image)
            yield prediction

    shown = predictions()
    if len(named) >= _LONG and (output.output_path or not sys.stdout.isatty()):  # else they show themselves
        shown = _with_progress(shown, len(named))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, about images that are reported as errors
        _write(FORMATS[output.format](shown), output.output_path)
    if picture is not None and output.visualize:
        picture.save(output.visualize)
        if len(picture) < len(named):
            logging.info('%s shows the first %d of %d images', output.visualize, len(picture), len(named))
    if failures:
        console.print_error(f'{failures} of {len(named)} images could not be used; the output says why')
    return failures


def _check_places(options: PredictOptions, output: PredictOutputOptions) -> None:
    """Raises InputError before any work if there are no images or an output cannot be written."""
    if not options.images:
        raise InputError('--images: none given')
    if output.visualize and not output.visualize.lower().endswith(PICTURE_ENDINGS):
        raise InputError(f'--visualize={output.visualize}: the name must end in one of {", ".join(PICTURE_ENDINGS)}')
    for flag, path in (('output_path', output.output_path), ('visualize', output.visualize)):
        early.check_place(flag, path)
        if path is not None and '://' not in path:
            check_name(os.path.realpath(path), flag, longest=f'{os.getpid()}-')


def _make_picture(classifier: Classifier, output: PredictOutputOptions) -> 'PredictionPicture':
    from engine.prediction.picture import PredictionPicture  # matplotlib takes half a second

    preprocessing, model = classifier.preprocessing, classifier.model
    if output.explain == 'none' or model is None:
        return PredictionPicture(preprocessing.host_range)
    from engine.classifiers.explaining import default_feature_map, make_explainer

    explain = make_explainer(model, output.explain, output.explain_layer)
    name = 'saliency'
    if output.explain == 'grad_cam':
        layer = output.explain_layer or default_feature_map(model)
        name = f'Grad-CAM of {layer.rpartition("/")[2]}'

    def explain_one(image: np.ndarray, index: int) -> np.ndarray:
        return explain(classifier.interface.prepare(image[np.newaxis], preprocessing), np.array([index]))[0]

    return PredictionPicture(preprocessing.host_range, explain_one, name)


def _find(names: Sequence[str]) -> list[tuple[str, Image]]:
    """Returns the name of each image and its path, or its bytes if they come from standard input."""
    named: list[tuple[str, Image]] = []
    left_out = LeftOut()
    for name in names:
        given = split_input(sys.stdin.buffer.read()) if name == '-' else [name]
        named += [('-', given)] if isinstance(given, bytes) else [(path, path) for path in find_images(given, left_out)]
    if str(left_out):
        logging.info('%s', left_out)
    return named


def _with_progress(predictions: Iterable[Prediction], total: int) -> Iterator[Prediction]:
    start = time.monotonic()
    with Progress('prediction', total=total, unit='image') as progress:
        for done, prediction in enumerate(predictions, 1):
            yield prediction
            if done % max(total // 10, 1) == 0:
                progress.report(done, f'Prediction [{done}/{total}]')
    logging.info('%d images, %.1f images/s', total, total / (time.monotonic() - start))


def _write(pieces: Iterable[str], path: str | None) -> None:
    """Writes to a file atomically, or to standard output piece by piece."""
    if path is None:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        return
    try:
        write_text(path, ''.join(pieces))
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--output_path={path}: {first_line(error)}') from error
