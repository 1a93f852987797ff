"""Exports of this project, which say themselves what net they are: nobody has to say it again.

spec = read_spec(onnx_file.load('/tmp/net.onnx'))         # None of a file of others
"""

from configs.errors import InputError
from engine.classifiers import description
from engine.model_spec import ModelSpec
from importing.onnx_file import OnnxFile

_WIDENED = ('none', 'float16')  # whose weights are numbers of float32


def read_spec(file: OnnxFile) -> ModelSpec | None:
    """Returns what a file says of its net.

    Raises:
        InputError: that is damaged; or the file is not the net alone, in float32.
    """
    if 'model' not in file.description:
        return None
    described = description.read(f'--source={file.path}', file.description)
    spec, interface = described.spec, described.interface
    for flag, is_given in (
        ('--include_preprocessing', interface.include_preprocessing),
        (f'--channel_order={interface.channel_order}', interface.reverses_channels(spec.make_preprocessing())),
        (f'--quantize={file.description.get("quantize")}', file.description.get('quantize', 'none') not in _WIDENED),
    ):
        if is_given:
            raise InputError(f'--source={file.path}: an export with {flag}; export the net without it')
    return spec
