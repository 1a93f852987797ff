"""Checks that a SavedModel has only operators that compute, before TensorFlow loads any of it.

    refuse_unknown('/tmp/net')           # InputError: ... WriteFile in signature function __inference_serve_12

Loading a SavedModel runs a program: its graph and functions may have operators that read and write files, call Python
or end the process. `COMPUTING` lists the operators that only compute; all others are refused. The saver's operators
are allowed only if nothing but the saver reaches them: TensorFlow's loader runs the ones that restore.
"""

import collections
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from support.errors import InputError, first_line

_BY_KIND = {
    'Values, shapes and layouts': """
        Const HostConst Placeholder PlaceholderV2 PlaceholderWithDefault NoOp Identity IdentityN StopGradient
        PreventGradient Snapshot EnsureShape GuaranteeConst Cast Bitcast Reshape Transpose ConjugateTranspose
        ExpandDims Squeeze Shape ShapeN Size Rank Fill ZerosLike OnesLike Range LinSpace Tile BroadcastTo
        BroadcastArgs BroadcastGradientArgs Concat ConcatV2 ConcatOffset ParallelConcat Pack Unpack Split SplitV
        Slice StridedSlice Pad PadV2 MirrorPad Gather GatherV2 GatherNd ScatterNd ScatterNdNonAliasingAdd
        TensorScatterUpdate TensorScatterAdd TensorScatterSub TensorScatterMax TensorScatterMin
        TensorStridedSliceUpdate Reverse ReverseV2 ReverseSequence Roll DepthToSpace SpaceToDepth BatchToSpace
        BatchToSpaceND SpaceToBatch SpaceToBatchND Where Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2
        ListDiff OneHot InvertPermutation DynamicPartition DynamicStitch ParallelDynamicStitch Diag DiagPart
        MatrixDiag MatrixDiagV2 MatrixDiagV3 MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixSetDiag
        MatrixSetDiagV2 MatrixSetDiagV3 MatrixBandPart DataFormatDimMap DataFormatVecPermute UnravelIndex DeepCopy
        Empty Bucketize LowerBound UpperBound FakeParam
    """,
    'Arithmetic': """
        Add AddV2 AddN AccumulateNV2 Sub Mul MulNoNan Div DivNoNan RealDiv TruncateDiv FloorDiv FloorMod Mod
        TruncateMod Pow Neg Abs Sign Square SquaredDifference Sqrt Rsqrt Inv Reciprocal Exp Expm1 Log Log1p Xlogy
        Xlog1py Xdivy Sin Cos Tan Asin Acos Atan Atan2 Sinh Cosh Tanh Asinh Acosh Atanh Erf Erfc Erfinv Ndtri Lgamma
        Digamma Polygamma Igamma Igammac Betainc Zeta Floor Ceil Round Rint Maximum Minimum ClipByValue Equal
        NotEqual ApproximateEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalNot Select
        SelectV2 IsFinite IsInf IsNan BitwiseAnd BitwiseOr BitwiseXor Invert LeftShift RightShift PopulationCount
        NextAfter Complex ComplexAbs Real Imag Conj Angle Cross Sum Mean Prod Max Min All Any EuclideanNorm ArgMax
        ArgMin TopK TopKV2 InTopK InTopKV2 NthElement Cumsum Cumprod CumulativeLogsumexp SegmentSum SegmentSumV2
        SegmentMean SegmentProd SegmentProdV2 SegmentMax SegmentMaxV2 SegmentMin SegmentMinV2 UnsortedSegmentSum
        UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd Bincount DenseBincount HistogramFixedWidth L2Loss
        CheckNumerics CheckNumericsV2 Assert
    """,
    'Matrices and transforms': """
        MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 SparseMatMul Einsum MatrixInverse MatrixDeterminant
        LogMatrixDeterminant MatrixSolve MatrixSolveLs MatrixTriangularSolve Cholesky Qr Svd Lu SelfAdjointEigV2 FFT
        FFT2D FFT3D IFFT IFFT2D IFFT3D RFFT RFFT2D RFFT3D IRFFT IRFFT2D IRFFT3D
    """,
    'Nets': """
        Conv Conv2D Conv3D DepthwiseConv2dNative Conv2DBackpropInput Conv2DBackpropInputV2 Conv3DBackpropInputV2
        DepthwiseConv2dNativeBackpropInput Dilation2D BiasAdd BiasAddV1 FusedBatchNorm FusedBatchNormV2
        FusedBatchNormV3 BatchNormWithGlobalNormalization LRN MaxPool MaxPoolV2 MaxPoolWithArgmax MaxPool3D AvgPool
        AvgPool3D FractionalMaxPool FractionalAvgPool Relu Relu6 LeakyRelu Elu Selu Softplus Softsign Sigmoid
        Softmax LogSoftmax SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits FusedPadConv2D
        FusedResizeAndPadConv2D LSTMBlockCell BlockLSTM BlockLSTMV2 GRUBlockCell ApproxTopK NonMaxSuppression
        NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 CombinedNonMaxSuppression
    """,
    'Integers in place of floats': """
        FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantize
        QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2 Dequantize
        QuantizedConv2D QuantizedMatMul QuantizedRelu QuantizedRelu6 QuantizedMaxPool QuantizedAvgPool
        QuantizedConcat QuantizedReshape QuantizedBiasAdd QuantizeDownAndShrinkRange RequantizationRange Requantize
        UniformQuantize UniformDequantize UniformRequantize UniformQuantizedAdd UniformQuantizedClipByValue
        UniformQuantizedConvolution UniformQuantizedConvolutionHybrid UniformQuantizedDot UniformQuantizedDotHybrid
    """,
    'Images and texts that are in memory': """
        DecodeJpeg DecodePng DecodeGif DecodeBmp DecodeWebP DecodeImage DecodeAndCropJpeg ExtractJpegShape
        EncodeJpeg EncodePng DecodeRaw DecodeBase64 EncodeBase64 ResizeBilinear ResizeNearestNeighbor ResizeBicubic
        ResizeArea ScaleAndTranslate CropAndResize AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation
        RGBToHSV HSVToRGB ExtractImagePatches ExtractGlimpse ExtractGlimpseV2 ImageProjectiveTransformV2
        ImageProjectiveTransformV3 DrawBoundingBoxes DrawBoundingBoxesV2 SampleDistortedBoundingBox
        SampleDistortedBoundingBoxV2 StatelessSampleDistortedBoundingBox AsString StringJoin StringFormat
        StringLength StringLower StringUpper StringStrip StringSplit StringSplitV2 StringToNumber StringToHashBucket
        StringToHashBucketFast StringToHashBucketStrong Substr ReduceJoin RegexReplace RegexFullMatch
        StaticRegexReplace StaticRegexFullMatch ShardedFilename ParseExample ParseExampleV2 ParseSingleExample
        ParseTensor SerializeTensor
    """,
    'Random numbers': """
        RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal RandomShuffle Multinomial
        StatelessRandomUniform StatelessRandomUniformV2 StatelessRandomUniformInt StatelessRandomUniformIntV2
        StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomNormal StatelessRandomNormalV2
        StatelessTruncatedNormal StatelessTruncatedNormalV2 StatelessMultinomial StatelessRandomGetKeyCounter
        StatelessRandomGetKeyCounterAlg StatelessRandomGetAlg RngReadAndSkip RngSkip StatefulUniform
        StatefulUniformInt StatefulStandardNormalV2
    """,
    'Functions, branches and loops; what they call is looked through too': """
        PartitionedCall StatefulPartitionedCall If StatelessIf Case StatelessCase While StatelessWhile Switch
        RefSwitch Merge RefMerge Enter RefEnter Exit RefExit NextIteration RefNextIteration LoopCond ControlTrigger
        RefIdentity RefSelect TensorArrayV3 TensorArrayReadV3 TensorArrayWriteV3 TensorArrayGatherV3
        TensorArrayScatterV3 TensorArraySizeV3 TensorArrayConcatV3 TensorArraySplitV3 TensorArrayCloseV3
        EmptyTensorList TensorListReserve TensorListGetItem TensorListSetItem TensorListPushBack TensorListPopBack
        TensorListLength TensorListResize TensorListStack TensorListFromTensor TensorListGather TensorListScatter
        TensorListScatterV2 TensorListScatterIntoExistingList TensorListConcat TensorListConcatV2
        TensorListConcatLists TensorListSplit TensorListElementShape OptionalNone OptionalFromValue OptionalHasValue
        OptionalGetValue
    """,
    'Variables and tables': """
        Variable VariableV2 VarHandleOp ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp
        VarIsInitializedOp IsVariableInitialized VariableShape Assign AssignAdd AssignSub DestroyResourceOp
        DisableCopyOnRead TemporaryVariable DestroyTemporaryVariable ResourceGather ResourceGatherNd
        ResourceScatterUpdate ResourceScatterAdd ResourceStridedSliceAssign StridedSliceAssign ScatterUpdate
        ScatterAdd CountUpTo HashTable HashTableV2 AnonymousHashTable MutableHashTable MutableHashTableV2
        AnonymousMutableHashTable MutableDenseHashTableV2 InitializeTable InitializeTableV2
        InitializeTableFromTextFile InitializeTableFromTextFileV2 LookupTableFind LookupTableFindV2 LookupTableSize
        LookupTableSizeV2 LookupTableImport LookupTableImportV2 LookupTableInsert LookupTableInsertV2
        LookupTableExport LookupTableExportV2
    """,
    'Sparse and ragged values, and summaries that stay in memory': """
        SparseToDense SparseTensorDenseMatMul SparseReshape SparseSlice SparseConcat SparseReorder
        SparseFillEmptyRows SparseSegmentSum SparseSegmentMean SparseSegmentSqrtN RaggedRange RaggedGather
        RaggedTensorToTensor RaggedTensorToSparse RaggedTensorToVariant RaggedTensorFromVariant ScalarSummary
        HistogramSummary ImageSummary TensorSummary TensorSummaryV2 MergeSummary
    """,
}
COMPUTING = frozenset(name for names in _BY_KIND.values() for name in names.split())
WRITING = frozenset(['Save', 'SaveSlices', 'SaveV2', 'MergeV2Checkpoints'])
RESTORING = frozenset(['Restore', 'RestoreSlice', 'RestoreV2'])

_SAVER = WRITING | RESTORING
_TABLE_FILES = ('InitializeTableFromTextFile', 'InitializeTableFromTextFileV2')
_IMPLEMENTS = (
    'api_implements'  # TensorFlow's graph optimizer may exchange functions with the same value of this attribute
)
_SHOWN = 5
_ASSETS = 'saved_model_assets'
_SAVERS = 'savers'  # the collection of SaverDefs; other collections of bytes hold VariableDefs


def refuse_unknown(path: str) -> None:
    """Raises InputError if a SavedModel has operators that may do more than compute.

    Args:
        path: Its folder.

    Raises:
        InputError: it has forbidden operators, or cannot be read.
    """
    if os.path.exists(os.path.join(path, 'saved_model.cpb')):
        raise InputError(
            f'{path}: saved_model.cpb, a graph split over several files, cannot be checked: save it as a single file'
        )
    try:
        with open(os.path.join(path, 'saved_model.pb'), 'rb') as file:
            model = saved_model_pb2.SavedModel.FromString(file.read())
    except (OSError, DecodeError) as error:
        raise InputError(f'{path}: not a SavedModel that TensorFlow can load: {first_line(error)}') from error
    if not model.meta_graphs:
        raise InputError(f'{path}: not a SavedModel that TensorFlow can load: there is no graph in it')
    of_objects = len(model.meta_graphs) == 1 and model.meta_graphs[0].HasField('object_graph_def')  # as in the loader
    try:
        found = [item for graph in model.meta_graphs for item in _unknown(graph, of_objects)]
    except DecodeError as error:
        raise InputError(f'{path}: not a SavedModel that TensorFlow can load: {first_line(error)}') from error
    if found:
        shown = [f'{operator} ({where})' for operator, where in dict.fromkeys(found)]
        more = f' and {len(shown) - _SHOWN} more' if len(shown) > _SHOWN else ''
        raise InputError(
            f'{path} was not run: it has operators that may do more than compute, such as touching files, processes or '
            f'Python: {", ".join(shown[:_SHOWN])}{more}. If you trust its author as you would the '
            'author of a program, give --allow_any_operator'
        )


def _unknown(graph: Any, of_objects: bool) -> Iterator[tuple[str, str]]:
    """Yields each operator of a MetaGraphDef that may do more than compute, with its location."""
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    assets = _assets(graph)
    for asset in assets:
        if os.path.isabs(asset.filename) or '..' in asset.filename.split('/'):
            yield asset.filename, 'a file outside of its folder'
    run = _closure(library, _of_objects(graph.object_graph_def)) if of_objects else set(library)
    for name, function in library.items():
        allowed = COMPUTING | library.keys() | (frozenset() if name in run else _SAVER)
        yield from ((node.op, f'function {name}') for node in function.node_def if node.op not in allowed)
        yield from _files_of_tables(function.node_def, f'function {name}', ())
    nodes = graph.graph_def.node
    if of_objects:  # its loader uses only the functions
        return
    yield from ((node.op, f'node {node.name}') for node in nodes if node.op not in COMPUTING | library.keys() | _SAVER)
    fed = [asset.tensor_info.name.partition(':')[0] for asset in assets]
    yield from _files_of_tables(nodes, 'the graph', fed)
    yield from _reached_savers(graph)


def _assets(graph: Any) -> list[Any]:
    """Returns a graph's asset files, each an AssetFileDef; older programs store them in a collection."""
    kept = graph.collection_def[_ASSETS].any_list.value if _ASSETS in graph.collection_def else ()
    return [*graph.asset_file_def, *(meta_graph_pb2.AssetFileDef.FromString(value.value) for value in kept)]


def _of_objects(objects: Any) -> Iterator[str]:
    """Yields the functions of a graph's objects, which the loader exposes or runs itself."""
    yield from objects.concrete_functions
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name
        yield node.captured_tensor.concrete_function


def _closure(library: Mapping[str, Any], called: Iterable[str]) -> set[str]:
    """Returns all functions that may run: the called ones and, recursively, the functions that they call."""
    left = [*called, *(name for name, function in library.items() if _IMPLEMENTS in function.attr)]
    found: set[str] = set()
    while left:
        name = left.pop()
        if name in library and name not in found:
            found.add(name)
            left += _calls(library[name].node_def)
    return found


def _calls(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield value.func.name
            yield from (function.name for function in value.list.func)


def _files_of_tables(nodes: Sequence[Any], where: str, fed: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the tables read from a file that the graph names itself, instead of an asset set by the loader."""
    tables = [node for node in nodes if node.op in _TABLE_FILES]
    constants = {node.name for node in nodes if node.op == 'Const'} if tables else set()
    for node in tables:
        name = node.input[1].partition(':')[0] if len(node.input) > 1 else ''
        if name in constants and name not in fed:
            yield node.op, f'of a file that is none of its assets, {where}'


def _reached_savers(graph: Any) -> Iterator[tuple[str, str]]:
    """Yields the saver operators in a TensorFlow 1 graph that other parts of the graph reach."""
    consumers = collections.defaultdict(list)
    for node in graph.graph_def.node:
        for name in node.input:
            consumers[_node_of(name)].append(node.name)
    run = set(_run_names(graph))
    restored = {_node_of(graph.saver_def.restore_op_name), _node_of(graph.saver_def.filename_tensor_name)}
    for node in graph.graph_def.node:
        if node.op not in _SAVER:
            continue
        reached, left = set(), [node.name]
        while left:
            name = left.pop()
            if name not in reached:
                reached.add(name)
                left += consumers[name]
        if reached & run or (node.op in WRITING and reached & restored):
            yield node.op, f'node {node.name}'


def _run_names(graph: Any) -> Iterator[str]:
    """Yields the nodes that the loader or a signature runs, except the saver's."""
    for signature in graph.signature_def.values():
        for info in (*signature.inputs.values(), *signature.outputs.values()):
            for name in (info.name, info.coo_sparse.values_tensor_name, info.coo_sparse.indices_tensor_name):
                yield _node_of(name)
            yield from (_node_of(part.name) for part in info.composite_tensor.components)
    for key, collection in graph.collection_def.items():
        yield from map(_node_of, collection.node_list.value)
        for value in collection.bytes_list.value if key != _SAVERS else ():
            yield from _names_of_variable(value)


def _names_of_variable(value: bytes) -> Iterator[str]:
    """Yields the nodes named by a serialized VariableDef, from which a loader computes the initial value."""
    try:
        variable = variable_pb2.VariableDef.FromString(value)
    except DecodeError:
        return
    for name in (variable.initializer_name, variable.initial_value_name, variable.snapshot_name):
        yield _node_of(name)


def _node_of(name: str) -> str:
    return name.removeprefix('^').partition(':')[0]
