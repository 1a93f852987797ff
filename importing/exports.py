"""Exports of this project, which say themselves what net they are: nobody has to say it again.

spec = read_spec(onnx_file.load('/tmp/net.onnx'))         # None of a file of others
"""

from configs.errors import InputError, first_line
from engine import checkpoints
from engine.classifiers import Interface
from engine.model_spec import ModelSpec
from importing.onnx_file import OnnxFile


def read_spec(file: OnnxFile) -> ModelSpec | None:
    """Returns what a file says of its net.

    Raises:
        InputError: that is damaged; or the file is not the net alone, in float32.
    """
    if 'model' not in file.description:
        return None
    try:
        spec = ModelSpec.from_json(file.description['model'])
        interface = Interface(**file.description['interface'])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        problem = f'what it says of its net ({checkpoints.METADATA}) is damaged, or by another version'
        raise InputError(f'--source={file.path}: {problem}: {first_line(error)}') from error
    assert spec is not None
    for flag, is_given in (
        ('--include_preprocessing', interface.include_preprocessing),
        (f'--channel_order={interface.channel_order}', interface.reverses_channels(spec.make_preprocessing())),
        (f'--quantize={file.description.get("quantize")}', file.description.get('quantize', 'none') != 'none'),
    ):
        if is_given:
            raise InputError(f'--source={file.path}: an export with {flag}; export the net without it')
    return spec
