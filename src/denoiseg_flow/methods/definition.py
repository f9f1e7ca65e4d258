"""Definition of a method, composed of a few named parts, and of the recipe to train it.

Nothing here imports torch, so the workflow can plan its jobs without loading it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from denoiseg_flow.methods.pretrained import PRETRAINED

# Snakemake watches the scripts, but not the package. Raise this number when the results of
# training or prediction may change, and Snakemake repeats finished runs.
REVISION = 11

NOISY = "noisy"  # value of `input`: the noisy images themselves

#: The segmenters that are a threshold, and learn nothing, see :mod:`thresholding`.
THRESHOLDS = ("otsu", "local_threshold")

#: The networks with an encoder that a recipe may freeze.
WITH_ENCODER = ("unet", "unet_blurpool")

# Endings of the models that `init` may name. A path with a folder needs none.
_MODEL_ENDINGS = (".pt", ".zip")

# Share of the patches from annotated images that are dimmed, at most.
MOST_DIMMED = 0.5

# Networks with a fixed number of down-samplings, whatever the depth in the recipe.
_DOWN_SAMPLINGS = {"dncnn": 0, "autoencoder": 2}


@dataclass(frozen=True)
class Method:
    """One entry of the config section ``methods``.

    Attributes
    ----------
    name
        Key of the entry.
    input
        ``"noisy"``, or the name of the method whose denoised images this method reads.
    target
        Target of the denoising loss: ``"blind_spot"`` (the noisy image itself, at masked pixels),
        ``"second_noisy"`` (a second noisy copy, Noise2Noise), ``"clean"`` (supervised), or
        ``"none"``.
    masking
        How masked pixels are chosen and replaced: a key of :data:`masking.REPLACEMENTS` for random
        pixels, or ``"grid_interpolate"`` or ``"grid_zero"`` for the pixels of a regular grid
        (Noise2Self).
    neighbourhood
        Side in pixels of the square that replacements are taken from; odd.
    struct_mask
        Rows of 0 and 1, with an odd number of rows and columns: the pixels around a masked one to
        mask as well (structN2V). None masks single pixels.
    grid
        Distance in pixels of the pixels that a grid masking masks together.
    mask_channel
        Whether the network reads the mask as an additional input channel.
    network
        Name of the network.
    alpha
        Weight of the denoising loss; the weight of the segmentation loss is 1 - alpha.
    init
        Name of the method, or of the pretrained network (:data:`pretrained.PRETRAINED`), or path
        of the model (:mod:`initial_model`), whose weights initialise the training; or None.
    rehearse
        Name of the pretrained network whose kind of simulated images stays in the training of a
        method that starts from other weights; None: only ``init`` decides, see :attr:`rehearsed`.
    recipe
        Entry of the config section ``recipes`` for the training; None: that of the study.
    each_image
        Whether to train a separate network for each image, on that image alone.
    classical
        Name of a classical denoiser (:data:`classical.DENOISERS`), which is not trained and uses
        no target, network or loss; or None.
    parameter
        Parameter of a classical denoiser, or candidates from which the self-supervised loss
        chooses; None: the default candidates.
    noise_sigma
        Source of the standard deviation of the noise for a classical denoiser: ``"estimated"`` from
        each image, or ``"known"`` from the noise level.
    segmenter
        Name of a segmentation without a network: one of :data:`THRESHOLDS`, or
        ``"pixel_classifier"``; it uses no target, network or loss. None for all other methods.
    planes
        Whether to process each z-slice of a volume separately.
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
    rehearse: str | None = None
    recipe: str | None = None
    each_image: bool = False
    classical: str | None = None
    parameter: float | Sequence[float] | None = None
    noise_sigma: str = "estimated"
    segmenter: str | None = None
    planes: bool = False

    @property
    def denoises(self) -> bool:
        """Whether the method yields denoised images."""
        return self.classical is not None or self.alpha > 0

    @property
    def segments(self) -> bool:
        """Whether the method yields instance labels."""
        return self.classical is None and self.alpha < 1

    @property
    def trained(self) -> bool:
        """Whether the method is trained by a recipe: it has a network, or classifies pixels."""
        return self.classical is None and self.segmenter not in THRESHOLDS

    @property
    def has_network(self) -> bool:
        """Whether the method trains a network."""
        return self.classical is None and self.segmenter is None

    @property
    def learns_segmentation(self) -> bool:
        """Whether the method learns from annotated images, and predicts class probabilities."""
        return self.segments and self.trained

    def learns_from(self, n_annotated: int) -> bool:
        """Return whether a network has anything to learn from, given the annotated images."""
        return self.denoises or n_annotated > 0

    @property
    def init_file(self) -> str | None:
        """Path of the model file or package that ``init`` names; None: it names something else."""
        is_path = self.init is not None and ("/" in self.init or self.init.endswith(_MODEL_ENDINGS))
        return self.init if is_path else None

    @property
    def rehearsed(self) -> str | None:
        """Name of the pretrained network whose kind of simulated images is rehearsed."""
        return self.init if self.init in PRETRAINED else self.rehearse

    @property
    def calibrated(self) -> bool:
        """Whether the self-supervised loss chooses the parameter of a classical denoiser."""
        single = isinstance(self.parameter, int | float)
        return self.classical is not None and self.classical != "raw" and not single

    @property
    def masks_grid(self) -> bool:
        """Whether the method masks a regular grid, which allows J-invariant prediction."""
        return self.target == "blind_spot" and self.masking.startswith("grid_")


@dataclass(frozen=True)
class Recipe:
    """One entry of the config section ``recipes``: network size and training schedule.

    Attributes
    ----------
    depth, filters
        Size of the network.
    patch_size, batch_size
        Side of a training patch in pixels, and number of patches per step.
    patch_depth
        Maximum number of z-slices of a training patch.
    epochs, steps_per_epoch
        Length of the training; the validation loss is computed after each epoch.
    learning_rate, schedule
        Learning rate of Adam (the peak for ``"one_cycle"``) and its schedule: ``"one_cycle"`` or
        ``"reduce_on_plateau"`` (halved after 10 epochs without a lower validation loss).
    weights
        Weights to keep: ``"last"`` or ``"best"`` (lowest validation loss).
    batch_norm_momentum
        Weight of each batch in the running statistics of batch normalisation. The papers' 0.01
        (0.99 in Keras) takes hundreds of steps to forget the initial values.
    freeze_batch_norm
        Fraction of the steps, at the end, in which batch normalisation uses fixed statistics
        instead of those of each batch, see :mod:`batch_norm`; 0 disables this. With 1, networks
        with ``init`` keep the statistics that they start with.
    freeze
        ``"encoder"``: networks with ``init`` keep the weights of their encoder, the layers before
        the first up-sampling, and its statistics of batch normalisation. None: all are trained.
    ema_decay
        Decay of an exponential moving average of the weights over the steps, which replaces the
        weights of the last step; 0 disables averaging.
    masked_fraction
        Fraction of pixels masked for a blind-spot target.
    annotated_share
        Fraction of each joint batch drawn from annotated images; None draws from all images
        equally. Methods that only segment draw all patches from annotated images, unless None.
    rehearsal
        Fraction of the patches from annotated images that are replaced by simulated ones, if the
        training starts from a network that was pretrained on simulated images. Without an annotated
        image, all of them are simulated.
    dimming
        Fraction of the patches from annotated images that are shown with less contrast if there is
        a single one, see :mod:`dimming` and :meth:`dimmed_share`.
    downscale
        How many times smaller the images are that the network reads, for objects that are large in
        pixels; 0.5: twice as large, for small ones. ``"auto"``: as fits the network in ``init``,
        see :mod:`object_size`.
    pseudo_labels
        Weight, relative to annotations, of pseudo-labels for the patches of a joint batch without
        annotation. The averaged weights predict these soft labels ("mean teacher", Tarvainen &
        Valpola 2017); 0 disables them.
    loss_normalisation
        ``"annotated_pixels"`` or ``"all_pixels"``, see :func:`losses.segmentation_loss`.
    validation_patches
        Maximum number of patches for the validation loss.
    preserve_mean
        Whether to shift the denoised image to the mean of the noisy one. Zero-mean noise preserves
        this mean, and the network does not reproduce it exactly.
    instances
        How to segment objects: ``"components"``, ``"watershed"`` or ``"distance"``, which needs
        another output of the network, see :mod:`instances`.
    test_time_augmentation
        Whether predictions are means over eight orientations of the image.
    multiscale
        Whether images are also segmented at half their size, and both results are combined, each
        where the network is more certain, see :func:`tiled_prediction.apply_network`.
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
    rehearsal: float = 0.0
    downscale: float | str = 1
    freeze: str | None = None
    dimming: float = 0.0
    multiscale: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole training."""
        return self.epochs * self.steps_per_epoch

    def patch_shape(self, dimensions: int) -> tuple[int, ...]:
        """Return the shape ([z,] y, x) of a training patch in thick volumes or in planes."""
        sides = (self.patch_size, self.patch_size)
        return (self.patch_depth, *sides) if dimensions == 3 else sides

    @property
    def first_frozen_step(self) -> int:
        """First step with fixed statistics of batch normalisation."""
        return self.steps - round(self.freeze_batch_norm * self.steps)

    @property
    def predicts_distance(self) -> bool:
        """Whether networks have an output for the relative distance."""
        return self.instances == "distance"

    @property
    def n_maps(self) -> int:
        """Number of output channels for segmentation: three classes, and the distance."""
        return 4 if self.predicts_distance else 3

    def annotated_patches(self, method: Method) -> int:
        """Return how many patches, the first of each batch, come from annotated images only."""
        if self.annotated_share is None or not method.segments:
            return 0
        return round(self.annotated_share * self.batch_size) if method.denoises else self.batch_size

    def simulated_patches(self, method: Method, n_annotated: int) -> int:
        """Return how many patches of each batch are simulated, after those of annotated images.

        They are included in :meth:`annotated_patches`.
        """
        if method.rehearsed is None:
            return 0
        annotated = self.annotated_patches(method)
        return round(self.rehearsal * annotated) if n_annotated else annotated

    def dimmed_share(self, n_annotated: int) -> float:
        """Return the fraction of patches that are dimmed: the more images, the more contrasts."""
        return min(self.dimming / max(n_annotated, 1), MOST_DIMMED)

    def dimmed_patches(self, method: Method, n_annotated: int) -> int:
        """Return how many patches of each batch, the first ones, may be dimmed.

        They are those of annotated images that are not simulated; none if denoising is learned from
        other images, which would have to be dimmed with them.
        """
        if not self.dimming or method.target not in ("blind_spot", "none"):
            return 0
        return self.annotated_patches(method) - self.simulated_patches(method, n_annotated)

    def rehearses(self, method: Method, n_annotated: int) -> bool:
        """Return whether any batch has simulated patches."""
        learns = method.learns_from(n_annotated)
        return learns and self.simulated_patches(method, n_annotated) > 0

    def first_pseudo_step(self, method: Method) -> int:
        """Return the first step with pseudo-labels; before, the teacher is not trained enough."""
        joint = method.denoises and method.segments
        if joint and self.pseudo_labels and self.annotated_patches(method) < self.batch_size:
            return 0 if method.init in PRETRAINED else round(0.3 * self.steps)
        return self.steps


def down_samplings(network: str, depth: int) -> int:
    """Return the number of down-samplings of a network, given the ``depth`` in the recipe."""
    return _DOWN_SAMPLINGS.get(network, depth)


def as_dict(part: Method | Recipe) -> dict[str, Any]:
    """Return the fields as plain values, for Snakemake's params and for model files."""
    return asdict(part)


def method_from_dict(values: Mapping[str, Any]) -> Method:
    """Return the method described by :func:`as_dict`, ignoring fields of later versions."""
    return Method(**_known(Method, values))


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe described by :func:`as_dict`, ignoring fields of later versions."""
    return Recipe(**_known(Recipe, values))


def _known(part: type[Method] | type[Recipe], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of existing fields; raise TypeError if one has the wrong type."""
    types = get_type_hints(part)
    found = {key: value for key, value in values.items() if key in types}
    for key, value in found.items():
        if not _is_of(value, types[key]):
            raise TypeError(f"{key} is {value!r}")
    return found


def _is_of(value: Any, kind: Any) -> bool:
    """Return whether a value has a type; parameters of generic types are ignored."""
    choices = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    kinds = [get_origin(each) or each for each in choices]
    return isinstance(value, tuple(kinds)) or (float in kinds and isinstance(value, int))
