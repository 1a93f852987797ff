"""A graph as a chain of steps, from its images to its results, whatever its nodes and values are called.

walked = walk(file, image_size=224)
walked.chain.steps, walked.layout, walked.logits_name
"""

import contextlib
import dataclasses

from configs.errors import InputError
from importing.chain import SOFTMAX, Chain
from importing.onnx_constants import Constants
from importing.onnx_file import OnnxFile
from importing.onnx_nodes import AXES, TO_NCHW, UNCHANGED, add_node
from importing.onnx_state import NCHW, NHWC, Node, OtherNodeError, State


@dataclasses.dataclass(frozen=True)
class Walked:
    """What was found.

    Attributes:
        chain: The steps; the last one may be `OTHER`, where the walk ended.
        layout: 'NCHW' or 'NHWC', of the images.
        extent: Their height, width and channels.
        logits_name: The value before the softmax at the end, or the last one.
        num_nodes: So many nodes were walked over.
    """

    chain: Chain
    layout: str
    extent: tuple[int, int, int]
    logits_name: str
    num_nodes: int


def walk(file: OnnxFile, image_size: int) -> Walked:
    """Follows the images through a graph.

    Args:
        file: The graph.
        image_size: Side of the images where the graph takes any.

    Raises:
        InputError: the file holds no weights or damaged ones, or takes images that no net of ours does.
    """
    consumers = _find_consumers(file)
    layout = _find_layout(file, consumers)
    extent = _find_extent(file, layout, image_size)
    chain = Chain(*extent)
    state = State(chain, Constants(file), layout, file.input_shape[0] or 1)
    data = logits = file.input_name
    count = 0
    try:
        while True:
            state.constants.shapes[data] = state.shape
            nodes = [node for node in consumers.get(data, ()) if node.op != 'Shape']
            if not nodes:
                break
            state.where = nodes[0].where
            if len(nodes) > 1:
                raise OtherNodeError(f'takes {data!r} beside {nodes[1].where}, a branch')
            add_node(state, nodes[0], data)
            data, count = nodes[0].outputs[0], count + 1
            logits = logits if chain.steps and chain.steps[-1].kind == SOFTMAX else data
    except OtherNodeError as error:
        chain.other(state.where, str(error))
    return Walked(chain, layout, extent, logits, count)


def _find_consumers(file: OnnxFile) -> dict[str, list[Node]]:
    """Returns the nodes that take each value."""
    consumers: dict[str, list[Node]] = {}
    for number, proto in enumerate(file.model.graph.node):
        node = Node(number, proto)
        for name in dict.fromkeys(node.inputs):
            consumers.setdefault(name, []).append(node)
    return consumers


def _find_layout(file: OnnxFile, consumers: dict[str, list[Node]]) -> str:
    """Returns how the images lie: channels last if the graph begins by putting them first."""
    data = file.input_name
    while len(nodes := consumers.get(data, [])) == 1 and nodes[0].op in UNCHANGED:
        data = nodes[0].outputs[0]
    with contextlib.suppress(OtherNodeError):
        return NHWC if nodes and nodes[0].op == 'Transpose' and nodes[0].integers('perm') == TO_NCHW else NCHW
    return NCHW


def _find_extent(file: OnnxFile, layout: str, image_size: int) -> tuple[int, int, int]:
    """Returns height, width and channels of the images."""
    height, width = (file.input_shape[axis] or image_size for axis in AXES[layout])
    channels = file.input_shape[layout.index('C')]
    if height != width:
        raise InputError(f'--source={file.path}: its images are {height}x{width}; the nets here take square ones')
    if channels not in (1, 3):
        raise InputError(
            f'--source={file.path}: its images have {channels or "any number of"} channels ({layout}); the nets here '
            'take 3 or 1'
        )
    return height, width, channels
