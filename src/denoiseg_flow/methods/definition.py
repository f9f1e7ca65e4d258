"""What a method is: a composition of a few named parts, and the recipe it is trained by.

Nothing here needs torch, so that the workflow can plan its jobs without loading it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

# Snakemake watches the scripts, not the package behind them: raise this number when the result of
# a training or prediction may change, and finished runs are repeated.
REVISION = 9

NOISY = "noisy"  # the value of `input` that means: the noisy images themselves

# Networks whose number of down-samplings does not follow the recipe's depth.
_DOWN_SAMPLINGS = {"dncnn": 0, "autoencoder": 2}


@dataclass(frozen=True)
class Method:
    """One entry of the config section ``methods``.

    Attributes
    ----------
    name
        Key of the entry.
    input
        ``"noisy"``, or the name of the method whose denoised images this one reads.
    target
        What the denoising half is trained towards: ``"blind_spot"`` (the noisy image itself, at
        hidden pixels), ``"second_noisy"`` (another draw of the noise, Noise2Noise), ``"clean"``
        (supervised), or ``"none"``.
    masking
        How hidden pixels are chosen and replaced: the name of one of
        :data:`masking.REPLACEMENTS`, at random pixels, or ``"grid_interpolate"`` or
        ``"grid_zero"``, at the pixels of a regular grid (Noise2Self).
    neighbourhood
        Side in pixels of the square that replacements are taken from; odd.
    struct_mask
        Rows of 0 and 1, an odd number of both rows and columns: which pixels around a hidden one
        are hidden with it (structN2V); None hides single pixels.
    grid
        Distance in pixels of the pixels that a grid masking hides together.
    mask_channel
        Whether the network reads the mask of hidden pixels as a second channel.
    network
        Name of the network.
    alpha
        Weight of the denoising loss, 1 - alpha that of the segmentation loss.
    init
        Name of the method whose weights training starts from, or None.
    recipe
        The entry of the config section ``recipes`` that it is trained by; None: the study's.
    each_image
        Whether every image gets a network of its own, trained on that image alone.
    classical
        Name of a denoiser that is not trained (:data:`classical.DENOISERS`), or None. It stands
        for itself: targets, networks and losses do not apply.
    parameter
        Of a classical denoiser: its parameter, or candidates of which the self-supervised loss
        chooses one; None stands for the default candidates.
    noise_sigma
        Where a classical denoiser has the standard deviation of the noise from: ``"estimated"``
        from each image, or ``"known"`` from the noise level.
    planes
        Whether it looks at each plane of a volume by itself.
    """

    name: str
    input: str = NOISY
    target: str = "none"
    masking: str = "uniform"
    neighbourhood: int = 11
    struct_mask: Sequence[Sequence[int]] | None = None
    grid: int = 4
    mask_channel: bool = False
    network: str = "unet"
    alpha: float = 0.0
    init: str | None = None
    recipe: str | None = None
    each_image: bool = False
    classical: str | None = None
    parameter: float | Sequence[float] | None = None
    noise_sigma: str = "estimated"
    planes: bool = False

    @property
    def denoises(self) -> bool:
        """Whether the method yields denoised images."""
        return self.classical is not None or self.alpha > 0

    @property
    def segments(self) -> bool:
        """Whether the method yields instance labels, and so depends on the annotated images."""
        return self.classical is None and self.alpha < 1

    @property
    def calibrated(self) -> bool:
        """Whether the self-supervised loss chooses the parameter of a classical denoiser."""
        single = isinstance(self.parameter, int | float)
        return self.classical is not None and self.classical != "raw" and not single

    @property
    def hides_grid(self) -> bool:
        """Whether the pixels of a regular grid are hidden, so that J-invariant inference exists."""
        return self.target == "blind_spot" and self.masking.startswith("grid_")


@dataclass(frozen=True)
class Recipe:
    """One entry of the config section ``recipes``: network size and training schedule.

    Attributes
    ----------
    depth, filters
        Size of the network.
    patch_size, batch_size
        Side of a training patch in pixels, and patches per step.
    patch_depth
        Planes of a training patch of volumes, at most.
    epochs, steps_per_epoch
        Length of the training; after each epoch the validation loss is computed.
    learning_rate, schedule
        Adam's learning rate (the peak, for ``"one_cycle"``), and how it changes: ``"one_cycle"``
        or ``"reduce_on_plateau"`` (halved after 10 epochs without a better validation loss).
    weights
        Which weights are kept: ``"last"`` or ``"best"`` (lowest validation loss).
    batch_norm_momentum
        Weight of each batch in the running statistics of batch normalisation. The papers' 0.01
        (0.99 in Keras) takes hundreds of steps to forget the initial values.
    freeze_batch_norm
        Share of the steps, at the end, in which batch normalisation uses fixed statistics instead
        of those of each batch, see :mod:`batch_norm`; 0 never does.
    ema_decay
        The weights that are kept are an exponential moving average over the steps, with this
        weight on the past; 0 keeps the weights of the last step themselves.
    masked_fraction
        Share of pixels that a blind-spot target hides.
    annotated_share
        Share of each joint batch that is drawn from annotated images; None draws from all images
        alike. Methods that only segment draw all patches from annotated images, unless None.
    pseudo_labels
        Weight, relative to the annotation, of the segmentation that the averaged weights yield for
        the patches of a joint batch without annotation ("mean teacher", Tarvainen & Valpola 2017,
        with soft labels); 0 does without.
    loss_normalisation
        ``"annotated_pixels"`` or ``"all_pixels"``, see :func:`losses.segmentation_loss`.
    validation_patches
        How many patches the validation loss is computed on, at most.
    preserve_mean
        Whether the denoised image is shifted to the mean of the noisy one: noise of mean zero
        leaves that mean as it is, and the network's own misses it by a little.
    instances
        How objects are made of probabilities: ``"components"`` or ``"watershed"``, see
        :mod:`instances`.
    test_time_augmentation
        Whether predictions are means over the eight orientations of the square.
    """

    depth: int
    filters: int
    patch_size: int
    batch_size: int
    epochs: int
    steps_per_epoch: int
    learning_rate: float
    schedule: str
    weights: str
    batch_norm_momentum: float
    freeze_batch_norm: float
    ema_decay: float
    masked_fraction: float
    annotated_share: float | None
    pseudo_labels: float
    loss_normalisation: str
    validation_patches: int
    preserve_mean: bool
    instances: str
    test_time_augmentation: bool
    patch_depth: int = 16

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def first_frozen_step(self) -> int:
        """The step before which the statistics of batch normalisation are fixed."""
        return self.steps - round(self.freeze_batch_norm * self.steps)

    def annotated_patches(self, method: Method) -> int:
        """Patches of a batch that ``method`` draws from annotated images only; they come first."""
        if self.annotated_share is None or not method.segments:
            return 0
        return round(self.annotated_share * self.batch_size) if method.denoises else self.batch_size

    def first_pseudo_step(self, method: Method) -> int:
        """The step from which pseudo-labels count: before, the teacher has to learn itself."""
        joint = method.denoises and method.segments
        if joint and self.pseudo_labels and self.annotated_patches(method) < self.batch_size:
            return round(0.3 * self.steps)
        return self.steps


def down_samplings(network: str, depth: int) -> int:
    """Return how often a network of that name halves an image, where the recipe says ``depth``."""
    return _DOWN_SAMPLINGS.get(network, depth)


def as_dict(part: Method | Recipe) -> dict[str, Any]:
    """Return the fields as plain values, for Snakemake's params and for model files."""
    return asdict(part)


def method_from_dict(values: Mapping[str, Any]) -> Method:
    """Return the method that :func:`as_dict` described, ignoring fields of later versions."""
    return Method(**_known(Method, values))


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe that :func:`as_dict` described, ignoring fields of later versions."""
    return Recipe(**_known(Recipe, values))


def _known(part: type[Method] | type[Recipe], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that have a field; raise TypeError if one is of another type."""
    types = get_type_hints(part)
    found = {key: value for key, value in values.items() if key in types}
    for key, value in found.items():
        if not _is_of(value, types[key]):
            raise TypeError(f"{key} is {value!r}")
    return found


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type of Python, as far as the type says without its brackets."""
    choices = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    kinds = [get_origin(each) or each for each in choices]
    return isinstance(value, tuple(kinds)) or (float in kinds and isinstance(value, int))
