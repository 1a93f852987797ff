"""TFLite metadata: a file's description for programs that read the standard metadata, and for this project.

finish('/tmp/converted.tflite', source, '/tmp/net.tflite')

An uncompressed zip archive is appended to the model, with `labels.txt`, the names of the classes, and `slim.json`, the
description that `engine.classifiers` reads; a buffer in the model describes these files and how images are scaled.
Source: tensorflow_lite_support/metadata/metadata_schema.fbs in tensorflow/tflite-support, schema 1.0.0.
"""

import json
import zipfile
from collections.abc import Sequence

import flatbuffers
import numpy as np

from engine.checkpoints import METADATA
from engine.classifiers.description import CHECKSUM, checksum
from export.source import Source
from support import optional_packages

BUFFER_NAME, LABELS = 'TFLITE_METADATA', 'labels.txt'

_MODEL_ID, _METADATA_ID, _PARSER_VERSION = b'TFL3', b'M001', '1.0.0'
# Enum values of the schema: AssociatedFileType, ColorSpaceType, ContentProperties and ProcessUnitOptions.
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2
_COLOR_SPACES = {'RGB': 1, 'gray': 2}
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1


def finish(converted: str, source: Source, path: str) -> None:
    """Writes the converter's output with metadata.

    Args:
        converted: A file without metadata.
        source: The source of the export.
        path: The file to write.
    """
    with open(converted, 'rb') as file:
        model = _with_buffer(file.read(), make_metadata(source))
    with open(path, 'wb') as file:
        file.write(model)
    description = {**source.description(), CHECKSUM: checksum(path, len(model))}
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_STORED) as archive:
        if source.spec.label_names:
            archive.writestr(zipfile.ZipInfo(LABELS), '\n'.join(source.spec.label_names) + '\n')
        archive.writestr(zipfile.ZipInfo(METADATA), json.dumps(description))


def _with_buffer(content: bytes, metadata: bytes) -> bytearray:
    """Returns a model with the metadata as an additional buffer."""
    schema = optional_packages.load('ai_edge_litert.schema_py_generated', 'writing TFLite files')
    model = schema.ModelT.InitFromPackedBuf(content)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = BUFFER_NAME, len(model.buffers)
    buffer.data = np.frombuffer(metadata, np.uint8)
    model.metadata = [*(model.metadata or []), entry]
    model.buffers.append(buffer)
    builder = flatbuffers.Builder(len(content) + len(metadata) + 1024)  # otherwise it grows by copying
    builder.Finish(model.Pack(builder), file_identifier=_MODEL_ID)
    return builder.Output()


def make_metadata(source: Source) -> bytes:
    """Returns the metadata of a net as a flatbuffer, ModelMetadata in the schema."""
    writer, spec = _Writer(), source.spec
    graph = writer.table(
        {2: writer.vector([_image_tensor(writer, source)]), 3: writer.vector([_scores(writer, source)])}
    )
    trained = f' trained on {spec.dataset_name}' if spec.dataset_name else ''
    root = writer.table(
        {
            0: writer.string(spec.model_name),
            1: writer.string(f'{spec.model_name}{trained}, {spec.num_classes} classes'),
            2: writer.string(f'step {source.step}'),
            3: writer.vector([graph]),
            6: writer.vector([writer.file(METADATA, 'how the net takes its images', _DESCRIPTIONS)]),
            7: writer.string(_PARSER_VERSION),
        }
    )
    return writer.finish(root)


def _image_tensor(writer: '_Writer', source: Source) -> int:
    """Writes the TensorMetadata of the images."""
    interface, preprocessing = source.interface, source.preprocessing
    normalization = preprocessing.normalization
    side, channels = (
        preprocessing.image_size,
        interface.input_shape(preprocessing)[0 if interface.layout == 'NCHW' else 2],
    )
    size = writer.table({}, uints={0: side, 1: side})
    color_space = _COLOR_SPACES.get('gray' if channels == 1 else interface.channel_order, 0)
    image = writer.table({1: size}, bytes={0: color_space})
    fields = {
        0: writer.string('images'),
        1: writer.string(f'{interface.channel_order if channels > 1 else "gray"} images, {interface.layout}'),
        3: writer.table({1: image}, bytes={0: _IMAGE_PROPERTIES}),
    }
    if interface.include_preprocessing or not normalization.per_image:  # which the schema cannot express
        step = -1 if interface.reverses_channels(preprocessing) else 1
        scaling = (
            ([0.0], [1.0])
            if interface.include_preprocessing
            else (normalization.mean[::step], normalization.std[::step])
        )
        options = writer.table(dict(enumerate(map(writer.floats, scaling))))
        fields[4] = writer.vector([writer.table({1: options}, bytes={0: _NORMALIZATION_OPTIONS})])
    return writer.table(fields)


def _scores(writer: '_Writer', source: Source) -> int:
    """Writes the TensorMetadata of the outputs."""
    fields = {
        0: writer.string(source.interface.output),
        1: writer.string(f'{source.interface.output} of the classes'),
        3: writer.table({1: writer.table({})}, bytes={0: _FEATURE_PROPERTIES}),
    }
    if source.spec.label_names:
        fields[6] = writer.vector([writer.file(LABELS, 'names of the classes', _TENSOR_AXIS_LABELS)])
    return writer.table(fields)


class _Writer:
    """Writes a flatbuffer from the leaves to the root; each method returns the offset of the part it wrote."""

    _MOST_FIELDS = 8

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def string(self, text: str) -> int:
        """Writes a string."""
        return self._builder.CreateString(text)

    def floats(self, values: Sequence[float]) -> int:
        """Writes [float]."""
        return self._builder.CreateNumpyVector(np.asarray(values, np.float32))

    def vector(self, offsets: Sequence[int]) -> int:
        """Writes a vector of tables."""
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def table(
        self, offsets: dict[int, int], bytes: dict[int, int] | None = None, uints: dict[int, int] | None = None
    ) -> int:
        """Writes a table of fields by their number in the schema."""
        self._builder.StartObject(self._MOST_FIELDS)
        for field, offset in offsets.items():
            self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, value in (uints or {}).items():
            self._builder.PrependUint32Slot(field, value, 0)
        for field, value in (bytes or {}).items():
            self._builder.PrependUint8Slot(field, value, 0)
        return self._builder.EndObject()

    def file(self, name: str, description: str, kind: int) -> int:
        """Writes an AssociatedFile."""
        return self.table({0: self.string(name), 1: self.string(description)}, bytes={2: kind})

    def finish(self, root: int) -> bytes:
        """Returns the complete flatbuffer."""
        self._builder.Finish(root, file_identifier=_METADATA_ID)
        return bytes(self._builder.Output())
