"""Imports weights of other frameworks: `python import_weights.py --source=net.onnx --model_name=... --train_dir=...`.

The imported net is compared with the source's own output before anything is written. `--help` lists the flags.
"""

from configs import cli, early
from configs.importing import ImportConfig

EXAMPLE = 'python import_weights.py --source=bvlcalexnet-12.onnx --model_name=bvlc_alexnet --train_dir=/tmp/caffe'
USUAL = ('source', 'model_name', 'train_dir', 'dataset_name', 'dataset_dir')


def main(config: ImportConfig) -> int:
    """Imports as `config` says; TensorFlow is imported only once the flags are known to be right."""
    early.check_names(config)
    early.check_file('source', config.source.source)
    early.check_file('labels_path', config.net.labels_path)
    early.check_dataset_dir(config.net.dataset_name, config.net.dataset_dir)
    from importing import importing

    importing.import_weights(config)
    return 0


if __name__ == '__main__':
    cli.run(ImportConfig, main, usual=USUAL, example=EXAMPLE)
