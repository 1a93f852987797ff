"""`model.json`: describes a checkpoint's net and its preprocessing, so that neither has to be guessed later.

spec = ModelSpec(model_name='alexnet_v2', num_classes=1001, ...)
spec.save(train_dir)
spec = ModelSpec.load(train_dir)
model, preprocessing = spec.make_model(), spec.make_preprocessing()
"""

import dataclasses
import json
import os
import typing
from typing import Any

import keras
import tensorflow as tf

from configs.data import RecordNames
from configs.training import AugmentOptions
from datasets import dataset_factory
from datasets.dataset_factory import Dataset
from datasets.files import in_one_form
from datasets.text_files import load_json, write_text
from engine import checkpoints
from nets import nets_factory
from nets.building import zero_weights
from nets.variables import slim_variables
from preprocessing import preprocessing_factory
from support.errors import InputError, first_line

FILE_NAME = 'model.json'
_KERNELS = 'kernels'  # beside the fields: the kernels that a run uses, which are not a property of the net
# The flags' limits: the net is built before it can be compared with the checkpoint.
_HIGHEST = {'image_size': 2**13, 'depth_multiplier': 16.0, 'num_classes': 2**20}
_NARROW = 1 / 16  # a net of this width is built at once


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A net and its preprocessing.

    Attributes:
        model_name: Key of `nets_factory.NETS`.
        num_classes: Number of logits, after `labels_offset`.
        image_size: Side of the images in pixels.
        channels: Channels of the images that the net takes: 3, or 1.
        preprocessing_name: Key of `preprocessing_factory.PREPROCESSINGS`.
        depth_multiplier: Width of the net.
        labels_offset: Number subtracted from the data set's labels.
        use_grayscale: Whether colour images are converted to gray for the net.
        dataset_name: The training data set.
        dataset_dir: The folder of the training data set.
        label_names: Name of each class, or empty.
        global_pool: Whether the net averages over positions before its logits; False in files without the field.
        record_keys: The data set's --record_keys, for records whose keys are not slim's.
        file_pattern: The data set's --file_pattern, for files whose names are not slim's, or ''.
    """

    model_name: str
    num_classes: int
    image_size: int
    channels: int
    preprocessing_name: str
    depth_multiplier: float
    labels_offset: int
    use_grayscale: bool
    dataset_name: str
    dataset_dir: str
    label_names: tuple[str, ...]
    global_pool: bool = False
    record_keys: tuple[str, ...] = ()
    file_pattern: str = ''

    @property
    def record_names(self) -> RecordNames:
        """Keys and file names of the data set's TFRecords."""
        return RecordNames(self.record_keys, self.file_pattern)

    @classmethod
    def for_dataset(
        cls,
        dataset: Dataset,
        model_name: str,
        *,
        preprocessing_name: str | None,
        image_size: int | None,
        depth_multiplier: float,
        use_grayscale: bool,
        global_pool: bool = False,
        channels: int | None = None,
    ) -> 'ModelSpec':
        """Returns the spec of a net for a data set; arguments that are None take the net's or the data set's default.

        Raises:
            InputError: a name is unknown, or three channels are asked for with `use_grayscale`.
        """
        net = nets_factory.get_net(model_name)
        preprocessing_name = preprocessing_name or net.preprocessing
        keeps_gray = preprocessing_factory.keeps_grayscale(preprocessing_name)
        if use_grayscale and channels == 3:
            raise InputError('--channels=3 contradicts --use_grayscale; leave one of them out')
        of_images = 1 if dataset.channels == 1 and keeps_gray else 3
        use_grayscale = use_grayscale or (channels == 1 and of_images == 3)
        return cls(
            model_name=model_name,
            num_classes=dataset.num_classes,
            image_size=image_size or net.image_size,
            channels=1 if use_grayscale else channels or of_images,
            preprocessing_name=preprocessing_name,
            depth_multiplier=depth_multiplier,
            labels_offset=dataset.labels_offset,
            use_grayscale=use_grayscale,
            dataset_name=dataset.name,
            dataset_dir=dataset.dataset_dir,
            label_names=dataset.label_names,
            global_pool=global_pool,
            **dataclasses.asdict(dataset.record_names),
        )

    @classmethod
    def for_net(
        cls,
        model_name: str,
        *,
        num_classes: int,
        channels: int,
        preprocessing_name: str | None,
        image_size: int | None,
        depth_multiplier: float,
        labels_offset: int,
        use_grayscale: bool,
        dataset_name: str,
        global_pool: bool = False,
    ) -> 'ModelSpec':
        """Returns the spec of a net without its data set; arguments that are None take the net's default."""
        net = nets_factory.get_net(model_name)
        return cls(
            model_name=model_name,
            num_classes=num_classes,
            image_size=image_size or net.image_size,
            channels=channels,
            preprocessing_name=preprocessing_name or net.preprocessing,
            depth_multiplier=depth_multiplier,
            labels_offset=labels_offset,
            use_grayscale=use_grayscale,
            dataset_name=dataset_name,
            dataset_dir='',
            label_names=(),
            global_pool=global_pool,
        )

    @staticmethod
    def variable_names(model_name: str) -> list[str]:
        """Returns the names of a net's variables from the first layer to the last; they do not depend on its size."""
        with zero_weights():
            return list(slim_variables(nets_factory.make_model(model_name, 2, depth_multiplier=_NARROW)))

    @staticmethod
    def variable_shapes(model_name: str) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of a net's variables at default size, with `checkpoints.ANY` for the number of classes."""
        with tf.Graph().as_default():  # computes nothing, not even initial weights
            variables = slim_variables(nets_factory.make_model(model_name, 2))
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        head = checkpoints.head_names(shapes)
        return {name: (*shape[:-1], checkpoints.ANY) if name in head else shape for name, shape in shapes.items()}

    def make_model(
        self,
        *,
        mixed_precision: str = 'float32',
        weight_decay: float = 0.0,
        dropout_keep_prob: float | None = None,
        seed: int = 0,
    ) -> keras.Model:
        """Builds the net; the arguments change only how it computes and trains, see `nets_factory.make_model`."""
        return nets_factory.make_model(
            self.model_name,
            self.num_classes,
            image_size=self.image_size,
            channels=self.channels,
            depth_multiplier=self.depth_multiplier,
            global_pool=self.global_pool,
            mixed_precision=mixed_precision,
            weight_decay=weight_decay,
            dropout_keep_prob=dropout_keep_prob,
            seed=seed,
        )

    def make_preprocessing(self, augment: AugmentOptions | None = None) -> preprocessing_factory.Preprocessing:
        """Returns the preprocessing; `augment` affects only training."""
        return preprocessing_factory.get_preprocessing(
            self.preprocessing_name,
            self.image_size,
            channels=self.channels,
            source_channels=3 if self.use_grayscale else self.channels,
            augment=augment or AugmentOptions(),
        )

    def folder_of_data(self) -> str | None:
        """Returns the folder of the data set if it is there, or None for the default folder.

        A missing data set is written or downloaded to the default folder, not to a folder that a foreign model.json
        names.
        """
        folder = self.dataset_dir or None
        if folder is None or dataset_factory.is_there(self.dataset_name, folder):
            return folder
        return None

    def save(self, train_dir: str, kernels: str | None = None) -> None:
        """Writes model.json atomically.

        Args:
            train_dir: The folder for model.json.
            kernels: The kernels that computed the weights, as described by `engine.distributed.kernels`, or None.
        """
        values = dataclasses.asdict(self)
        text = json.dumps(values if kernels is None else {**values, _KERNELS: kernels}, indent=1)
        write_text(os.path.join(train_dir, FILE_NAME), text + '\n')

    @classmethod
    def load(cls, train_dir: str) -> 'ModelSpec | None':
        """Reads model.json; returns None if it is missing.

        Raises:
            InputError: model.json is damaged.
        """
        path = os.path.join(train_dir, FILE_NAME)
        return load_json(path, cls.from_json, 'put it right, or move it away and give the flags of the net')

    @staticmethod
    def load_kernels(train_dir: str) -> str | None:
        """Reads from model.json the kernels that the run has used so far; None if they are not recorded."""
        return load_json(os.path.join(train_dir, FILE_NAME), lambda values: values.get(_KERNELS), 'put it right')

    @classmethod
    def of_checkpoint(cls, checkpoint: checkpoints.Checkpoint) -> 'ModelSpec | None':
        """Returns the spec of a checkpoint's net: the description inside an export, else model.json beside it.

        Raises:
            InputError: the description or model.json is damaged.
        """
        exported = checkpoint.metadata.get('model')
        if exported is None:
            return cls.load(os.path.dirname(checkpoint.prefix))
        try:
            return cls.from_json(exported)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f'{checkpoint.prefix}: its description is damaged, or from another version: {first_line(error)}'
            ) from error

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> 'ModelSpec':
        """Returns a spec from its fields as JSON values; raises ValueError, TypeError or KeyError for invalid ones."""
        lists = {'label_names': values['label_names'], 'record_keys': values.get('record_keys', ())}
        for name, items in lists.items():
            if not isinstance(items, list | tuple):
                raise TypeError(f'{name} are no list')
            lists[name] = tuple(items)
        fields = {name: value for name, value in values.items() if name != _KERNELS}
        spec = cls(**{**fields, **lists})
        spec._check_types()
        return dataclasses.replace(spec, label_names=tuple(map(in_one_form, spec.label_names)))

    def _check_types(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            kind, value = typing.get_origin(hint) or hint, getattr(self, name)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(f'{name} is {value!r}, which is not {kind.__name__}')
        for names in ('label_names', 'record_keys'):
            if not all(type(name) is str for name in getattr(self, names)):
                raise TypeError(f'{names} are not all text')
        _ = self.record_names
        if self.label_names and len(self.label_names) != self.num_classes:
            raise ValueError(f'{len(self.label_names)} label_names for {self.num_classes} classes')
        if self.labels_offset < 0:
            raise ValueError(f'labels_offset is {self.labels_offset}, which is below 0')
        for name, highest in _HIGHEST.items():
            if not 0 < getattr(self, name) <= highest:
                raise ValueError(f'{name} is {getattr(self, name)!r}, which is not above 0 and at most {highest}')

    def differences(self, other: 'ModelSpec') -> list[tuple[str, object, object]]:
        """Returns the fields in which the net or the preprocessing differ: name, value here, value in `other`."""
        ignored = ['dataset_name', 'dataset_dir', 'record_keys', 'file_pattern']
        if not (self.label_names and other.label_names):
            ignored.append('label_names')
        names = [field.name for field in dataclasses.fields(self) if field.name not in ignored]
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return [(name, here, there) for name, here, there in pairs if here != there]
