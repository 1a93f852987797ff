"""Classifies images: `python predict_image_classifier.py --checkpoint_path=TRAIN_DIR image.jpg folder/ '*.png' -`.

Prints the most likely classes of each image. Images are files, folders (searched recursively), quoted globs, or `-`: an
image or a list of paths on standard input. Exit status 1: some images could not be used. `--help` lists the flags.
"""

from configs import cli, early
from configs.prediction import PredictConfig

EXAMPLE = 'python predict_image_classifier.py --checkpoint_path=/tmp/digits --top_k=3 photo.jpg folder/'
USUAL = ('checkpoint_path', 'top_k', 'format', 'output_path', 'visualize')


def main(config: PredictConfig) -> int:
    """Predicts as `config` says; TensorFlow is imported only once the flags are known to be right."""
    early.check_prediction(config)
    cli.silence_tensorflow()
    from engine.prediction import predict as predicting

    return 1 if predicting.predict(config) else 0


if __name__ == '__main__':
    cli.run(PredictConfig, main, positional='images', usual=USUAL, example=EXAMPLE)
