"""Makes TFRecords: `python download_and_convert_data.py --dataset_name=imagenet --source_dir=... --dataset_dir=...`.

`--verify` compares a converted data set with its dataset.json; `--unpack` decompresses TFRecords. `--help` lists the
flags.
"""

from configs import cli
from configs.conversion import ConvertConfig

EXAMPLE = 'python download_and_convert_data.py --dataset_name=image_folder --source_dir=pets --dataset_dir=/tmp/pets'
USUAL = ('dataset_name', 'source_dir', 'dataset_dir', 'verify')


def main(config: ConvertConfig) -> int:
    """Converts or verifies as `config` says.

    Returns:
        The exit status: 0, 1 if the data set is not as it should be, or as a shell counts it for a signal.
    """
    from datasets.conversion import convert, unpack, verify

    if config.work.unpack:
        return unpack.unpack(config)
    return verify.verify(config) if config.work.verify else convert.convert(config)


if __name__ == '__main__':
    cli.run(ConvertConfig, main, usual=USUAL, example=EXAMPLE)
