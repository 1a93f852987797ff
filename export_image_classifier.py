"""Exports a checkpoint: `python export_image_classifier.py --checkpoint_path=... --format=onnx --output_path=...`.

Formats: SavedModel, TFLite and ONNX, quantised or not; slim's checkpoint, .keras and .weights.h5. Each export is
compared with its checkpoint before it is put in place. `--help` lists the flags.
"""

from configs import cli, early
from configs.export import ExportConfig

EXAMPLE = (
    'python export_image_classifier.py --checkpoint_path=/tmp/digits --format=tflite --output_path=/tmp/digits.tflite'
)
USUAL = ('checkpoint_path', 'format', 'output_path', 'quantize', 'includes_preprocessing')


def main(config: ExportConfig) -> int:
    """Exports as `config` says; TensorFlow is imported only once the flags are known to be right."""
    early.check_export(config)
    from export import exporting

    exporting.export(config)
    return 0


if __name__ == '__main__':
    cli.run(ExportConfig, main, usual=USUAL, example=EXAMPLE)
