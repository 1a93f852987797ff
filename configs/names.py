"""The names in the factories: nets, preprocessings, data sets, optimizers, schedules, export formats.

They are repeated here so that a misspelt name is an error before TensorFlow is imported, which the factories need. A
test compares them with the factories' tables.
"""

from support.errors import unknown_name

_POOLING_MOBILENETS = ('mobilenet_v1', 'mobilenet_v1_025', 'mobilenet_v1_050', 'mobilenet_v1_075')
_MOBILENETS = (
    'mobilenet_edgetpu',
    'mobilenet_edgetpu_075',
    *_POOLING_MOBILENETS,
    'mobilenet_v2',
    'mobilenet_v2_035',
    'mobilenet_v2_140',
    'mobilenet_v3_large',
    'mobilenet_v3_large_minimalistic',
    'mobilenet_v3_small',
    'mobilenet_v3_small_minimalistic',
)
_RESNETS = tuple(f'resnet_v{version}_{depth}' for version in (1, 2) for depth in (50, 101, 152, 200))
_VGGS = ('vgg_a', 'vgg_16', 'vgg_19')
_POOLING_INCEPTIONS = ('inception_v1', 'inception_v2', 'inception_v3')
_INCEPTIONS = ('inception_resnet_v2', *_POOLING_INCEPTIONS, 'inception_v4')

# Net -> its preprocessing.
PREPROCESSING_OF_NET = {
    'alexnet': 'inception',
    'alexnet_bn': 'inception',
    'alexnet_v2': 'inception',
    'bvlc_alexnet': 'caffe',
    'caffenet': 'caffe',
    'cifarnet': 'cifarnet',
    **dict.fromkeys(_INCEPTIONS, 'inception'),
    'lenet': 'lenet',
    **dict.fromkeys(_MOBILENETS, 'inception'),
    'overfeat': 'vgg',
    **dict.fromkeys(_RESNETS, 'vgg'),
    'torchvision_alexnet': 'torchvision',
    **dict.fromkeys(_VGGS, 'vgg'),
}
NETS = tuple(PREPROCESSING_OF_NET)
# Nets with --global_pool, and nets with batch normalisation.
POOLING_NETS = ('alexnet_v2', *_POOLING_INCEPTIONS, *_POOLING_MOBILENETS, 'overfeat', *_VGGS)
BATCH_NORM_NETS = ('alexnet_bn', *_INCEPTIONS, *_MOBILENETS, *_RESNETS)

# Family of preprocessings -> slim's names for it, which are names of nets.
PREPROCESSING_FAMILIES: dict[str, tuple[str, ...]] = {
    'caffe': (),
    'cifarnet': (),
    'inception': (
        'inception_v1',
        'inception_v2',
        'inception_v3',
        'inception_v4',
        'inception_resnet_v2',
        'mobilenet_v1',
        'mobilenet_v2',
        'mobilenet_v2_035',
        'mobilenet_v2_140',
        'mobilenet_v3_small',
        'mobilenet_v3_small_minimalistic',
        'mobilenet_v3_large',
        'mobilenet_v3_large_minimalistic',
        'mobilenet_edgetpu',
        'mobilenet_edgetpu_075',
        'nasnet_mobile',
        'nasnet_large',
        'pnasnet_mobile',
        'pnasnet_large',
    ),
    'lenet': (),
    'torchvision': (),
    'vgg': (
        'vgg_a',
        'vgg_16',
        'vgg_19',
        'resnet_v1_50',
        'resnet_v1_101',
        'resnet_v1_152',
        'resnet_v1_200',
        'resnet_v2_50',
        'resnet_v2_101',
        'resnet_v2_152',
        'resnet_v2_200',
    ),
    'whole': (),
}
PREPROCESSINGS = (*PREPROCESSING_FAMILIES, *(name for names in PREPROCESSING_FAMILIES.values() for name in names))
TFDS = 'tfds:'  # prefix of a data set of TensorFlow Datasets
RECORD_DATASETS = ('cifar10', 'digits', 'flowers', 'imagenet', 'mnist')  # slim's TFRecords
DATASETS = ('cifar10', 'digits', 'flowers', 'image_folder', 'imagenet', 'mnist', 'synthetic', f'{TFDS}<name>')
OPTIMIZERS = ('adadelta', 'adagrad', 'adam', 'ftrl', 'momentum', 'sgd', 'rmsprop', 'lars', 'lamb')
SCHEDULES = ('fixed', 'exponential', 'polynomial', 'cosine', 'piecewise')
# Format -> ending of its files; empty if it is a folder.
EXPORT_ENDINGS = {
    'keras': '.keras',
    'onnx': '.onnx',
    'saved_model': '',
    'slim': '',
    'tflite': '.tflite',
    'weights.h5': '.weights.h5',
}
EXPORT_FORMATS = tuple(EXPORT_ENDINGS)

# Option -> the kind of its values, for messages, and the valid values.
OF_OPTIONS = {
    'model_name': ('net', NETS),
    'preprocessing_name': ('preprocessing', PREPROCESSINGS),
    'dataset_name': ('dataset_name', DATASETS),
    'optimizer': ('optimizer', OPTIMIZERS),
    'learning_rate_decay_type': ('learning_rate_decay_type', SCHEDULES),
}


def preprocessing_family(name: str | None, model_name: str | None) -> str | None:
    """Returns the family of a preprocessing, by default of the net's own; None if neither is known."""
    name = name or PREPROCESSING_OF_NET.get(model_name or '')
    return next((family for family, others in PREPROCESSING_FAMILIES.items() if name in (family, *others)), None)


def check_name(option: str, value: str) -> None:
    """Raises InputError for an unknown name of an option in `OF_OPTIONS`, with the closest and all valid names."""
    kind, names = OF_OPTIONS[option]
    is_of_tfds = option == 'dataset_name' and value.startswith(TFDS)
    if value not in names and not is_of_tfds:
        raise unknown_name(kind, value, names)
