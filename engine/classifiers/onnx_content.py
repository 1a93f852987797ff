"""Checksums of an ONNX file's weights and nodes, independent of how a program serialised it.

    description['content'] = checksums(model)          # in an export
    check('/tmp/net.onnx', description)                # raises InputError if damaged

Another program may save an export again: with other labels, another version of the operators, in another order. The
file then differs, but the net is the same. A changed weight, or one changed node and nothing else, counts as damage.
"""

import os
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.checkpoints import METADATA
from engine.classifiers import description
from support import optional_packages
from support.errors import InputError, first_line

BYTES = 'bytes'  # key in an export's description: the description's offset in the file
CONTENT = 'content'
_WEIGHTS, _NODES = 'weights', 'nodes'
# The first bytes of a description: field number and length of `metadata_props`, and of the key in it.
_DESCRIPTION = rb'r[\x80-\xff]*[\x00-\x7f]\n.' + re.escape(METADATA).encode()
_OWN_DOMAIN = 'ai.onnx'
_FEW = 2  # damage to one node can change two: the node and a consumer of its output


def checksums(model: Any) -> dict[str, str]:
    """Returns checksums of everything that affects a model's results.

    Returns:
        For weights and for nodes, two hexadecimal checksums each: of the name (of a weight with its type and shape, of
        a node by its output), and of the content.
    """
    found = {_WEIGHTS: _weights(model.graph), _NODES: _nodes(model.graph)}
    return {
        kind: ''.join(f'{key:08x}{checksum:08x}' for key, (checksum, _) in of_kind.items())
        for kind, of_kind in found.items()
    }


def _weights(graph: Any) -> dict[int, tuple[int, str]]:
    """Returns checksum and name of each weight, by the checksum of its name, type and shape."""
    to_array = optional_packages.load('onnx.numpy_helper', 'reading ONNX files').to_array
    found = {}
    for tensor in graph.initializer:
        values = np.ascontiguousarray(to_array(tensor))
        called = f'{tensor.name} {tensor.data_type} {list(values.shape)}'
        found[zlib.crc32(called.encode())] = (zlib.crc32(values.reshape(-1).view(np.uint8).data), tensor.name)
    return found


def _nodes(graph: Any) -> dict[int, tuple[int, str]]:
    """Returns checksum and name of each node, by the checksum of its output's name."""
    named = [(str(node.output[0]), node) for node in graph.node if node.output]
    return {zlib.crc32(name.encode()): (_of_node(node), f'the node of {name}') for name, node in named}


def _of_node(node: Any) -> int:
    domain = '' if node.domain == _OWN_DOMAIN else node.domain
    parts = [node.op_type, domain, *node.input, '', *node.output, '']
    text = '\n'.join(map(str, parts)).encode()
    for attribute in sorted(node.attribute, key=lambda attribute: str(attribute.name)):
        kept = type(attribute)()
        kept.CopyFrom(attribute)
        kept.ClearField('doc_string')
        text += kept.SerializeToString(deterministic=True)
    return zlib.crc32(text)


def check(path: str, metadata: Mapping[str, Any], model: Any = None) -> None:
    """Compares an export with the checksums in its description.

    Args:
        path: The file.
        metadata: Its description.
        model: Its `onnx.ModelProto`, if already read.

    Raises:
        InputError: the file is damaged.
    """
    as_written = _is_as_written(path, metadata.get(BYTES))
    if as_written and metadata.get(description.CHECKSUM) == description.checksum(path, metadata[BYTES]):
        return
    if not isinstance(metadata.get(CONTENT), dict):  # an older export
        if as_written:
            raise description.damaged(path)
        return
    try:
        changed = _changed(metadata[CONTENT], (model if model is not None else _load(path)).graph)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f'{path}: damaged, its content cannot be compared: {first_line(error)}') from error
    if changed is not None:
        raise description.damaged(path, f' in {changed}')


def _load(path: str) -> Any:
    onnx = optional_packages.load('onnx', 'reading ONNX files')
    decode_error = optional_packages.load('google.protobuf.message', 'reading ONNX files').DecodeError
    try:
        return onnx.load(path)
    except decode_error as error:
        raise ValueError(first_line(error)) from error


def _changed(written: Mapping[str, str], graph: Any) -> str | None:
    """Returns the name of the damaged part; None if nothing changed or another program rewrote the graph."""
    weights, found_weights = _parse(written[_WEIGHTS]), _weights(graph)
    for key, (checksum, name) in found_weights.items():
        if weights.get(key, checksum) != checksum:
            return name
    nodes, found_nodes = _parse(written[_NODES]), _nodes(graph)
    same = {key for key, (checksum, _) in found_nodes.items() if nodes.get(key) == checksum}
    is_same_otherwise = len(nodes) == len(found_nodes) and weights.keys() == found_weights.keys()
    if is_same_otherwise and 0 < len(nodes) - len(same) <= _FEW:
        return next(name for key, (_, name) in found_nodes.items() if key not in same)
    return None


def _parse(text: str) -> dict[int, int]:
    """Parses the checksums of `checksums`: a dict from each part's name to its content."""
    numbers = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    return dict(zip(numbers[::2], numbers[1::2], strict=True))


def _is_as_written(path: str, size: Any) -> bool:
    """Returns whether the description is still at its offset; it moves if another program saves the file."""
    if not isinstance(size, int) or not 0 < size < os.path.getsize(path):
        return False
    with open(path, 'rb') as file:
        file.seek(size)
        return re.match(_DESCRIPTION, file.read(32)) is not None
