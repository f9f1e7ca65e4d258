"""Find contradictions in the definitions of methods, before any job starts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from denoiseg_flow.errors import InputError, shown
from denoiseg_flow.methods.definition import (
    NOISY,
    WITH_ENCODER,
    Method,
    Recipe,
    down_samplings,
)
from denoiseg_flow.methods.pretrained import PRETRAINED, Pretrained

# Fields of methods with a network.
_OF_NETWORKS = (
    *("target", "alpha", "network", "masking", "mask_channel", "struct_mask", "init"),
    *("rehearse", "each_image"),
)


def check_method(method: Method, methods: Mapping[str, Method]) -> None:
    """Raise InputError for the first contradiction in the definition of a method.

    Parameters
    ----------
    methods
        All methods of the config by name.
    """
    key = f"methods.{method.name}"
    if method.input != NOISY:
        source = look_up(methods, method.input, "method", f"{key}.input")
        if not source.denoises:
            raise InputError(
                f"config key '{key}.input' names '{source.name}', which does not denoise "
                "(alpha 0); name a method with alpha above 0"
            )
    if method.name in PRETRAINED:
        raise InputError(
            f"config key '{key}' has the name of a pretrained network of this package; rename it"
        )
    if method.init is not None and method.init not in PRETRAINED and not method.init_file:
        source = look_up({**methods, **PRETRAINED}, method.init, "method", f"{key}.init")
        if not source.has_network or source.each_image:
            raise InputError(
                f"config key '{key}.init' names '{source.name}', which has no single network to "
                "start from; name another method"
            )
    _check_ends(method, methods)
    if method.segmenter:
        _check_segmenter(method, key)
    elif method.classical:
        _check_classical(method, key)
    else:
        _check_target(method, key)
        _check_masking(method, key)


def check_size(
    method: Method,
    methods: Mapping[str, Method],
    recipe_of: Callable[[Method], Recipe],
    recipe_key: str,
) -> None:
    """Raise InputError if a selected method does not fit its recipe.

    Parameters
    ----------
    methods
        All methods of the config by name.
    recipe_of
        Returns the recipe of a method.
    recipe_key
        Config key of the recipe of this method.
    """
    if not method.has_network:
        return
    key, recipe = f"methods.{method.name}", recipe_of(method)
    size, stride = recipe.patch_size, 2 ** down_samplings(method.network, recipe.depth)
    if size % stride:
        raise InputError(
            f"config key '{recipe_key}.patch_size' is {size}, but network '{method.network}' of "
            f"{key} (depth {recipe.depth}) needs a multiple of {stride}"
        )
    if method.masks_grid and method.grid > size:
        raise InputError(
            f"config key '{key}.grid' is {method.grid}, larger than a training patch, and so the "
            f"smallest image, of {size} pixels a side; lower it, for example to 4"
        )
    rows, columns = np.shape(method.struct_mask or [[1]])
    if max(rows, columns) > size:
        raise InputError(
            f"config key '{key}.struct_mask' has {rows}x{columns} pixels, more than a training "
            f"patch ({size}x{size}); shorten it, or raise '{recipe_key}.patch_size'"
        )
    if recipe.freeze and method.init and method.network not in WITH_ENCODER:
        raise InputError(
            f"config key '{recipe_key}.freeze' is '{recipe.freeze}', but network "
            f"'{method.network}' of {key} has none; leave it out, or name another recipe under "
            f"'{key}.recipe'"
        )
    if method.rehearse:
        _check_rehearse(method, recipe, key, recipe_key)
    if recipe.downscale != 1:
        _check_downscale(method, recipe.downscale, key, recipe_key)
    if method.init in PRETRAINED:
        _check_pretrained(method, PRETRAINED[method.init], key, recipe_of(method), recipe_key)
    elif method.init is not None and not method.init_file:
        _check_init(method, methods[method.init], key, recipe_of)


def look_up(section: Mapping[str, Any], name: str, kind: str, key: str) -> Any:
    """Return an entry of a config section; errors name the config key that refers to it."""
    if name not in section:
        raise InputError(
            f"unknown {kind} {shown(name)}; available: {_listed(section)} (config key {key})"
        )
    return section[name]


def needed_methods(method: Method, methods: Mapping[str, Method]) -> list[str]:
    """Return the names of the defined methods that a method builds on."""
    return [name for name in (method.input, method.init) if name is not None and name in methods]


def _check_ends(method: Method, methods: Mapping[str, Method]) -> None:
    """Raise InputError if a method builds on itself through others."""
    waiting, seen = [method.name], []
    while waiting:
        current = methods[waiting.pop()]
        seen.append(current.name)
        needed = needed_methods(current, methods)
        if method.name in needed:
            raise InputError(
                f"config key 'methods.{method.name}' builds on itself, through "
                f"{' and '.join(seen)}; change 'input' or 'init' of one of them"
            )
        waiting += [name for name in needed if name not in seen]


def _check_classical(method: Method, key: str) -> None:
    why = f"is classical ({method.classical}) and not trained"
    _check_unused(method, key, why, (*_OF_NETWORKS, "recipe"))
    if method.classical == "raw" and method.parameter is not None:
        raise InputError(f"config key '{key}.parameter' has no effect on 'raw'; leave it out")
    if method.noise_sigma == "known" and method.input != NOISY:
        raise InputError(
            f"config key '{key}.noise_sigma' is 'known', but the remaining noise in the denoised "
            f"images of '{method.input}' is not known; write 'noise_sigma: estimated'"
        )


def _check_segmenter(method: Method, key: str) -> None:
    if method.classical:
        raise InputError(
            f"config key '{key}' has both 'segmenter' and 'classical'; leave one of them out, and "
            "name a method that denoises under 'input' instead"
        )
    why = f"segments without a network (segmenter '{method.segmenter}')"
    _check_unused(method, key, why, (*_OF_NETWORKS, "parameter", "noise_sigma"))
    if not method.trained:
        why = f"segments by a threshold ({method.segmenter}) of the whole image, without training"
        _check_unused(method, key, why, ("recipe", "planes"))


def _check_unused(method: Method, key: str, why: str, fields: Iterable[str]) -> None:
    """Raise InputError for the first of some fields that is set."""
    plain = Method(method.name)
    for field in fields:
        if getattr(method, field) != getattr(plain, field):
            raise InputError(
                f"config key '{key}' {why}, so '{field}' has no effect; leave '{field}' out"
            )


def _check_target(method: Method, key: str) -> None:
    if method.denoises and method.target == "none":
        raise InputError(
            f"config key '{key}' has alpha {method.alpha} but no target for denoising; set "
            "'target: blind_spot', or 'alpha: 0' to segment only"
        )
    if not method.denoises and method.target != "none":
        raise InputError(
            f"config key '{key}' has target '{method.target}' but alpha 0, so it would not learn "
            "to denoise; set alpha above 0, or 'target: none'"
        )
    for field in ("parameter", "noise_sigma"):
        if getattr(method, field) != getattr(Method(method.name), field):
            raise InputError(
                f"config key '{key}.{field}' is for classical denoisers only; leave it out, or "
                "name a denoiser under 'classical'"
            )


def _check_masking(method: Method, key: str) -> None:
    if method.mask_channel and method.target != "blind_spot":
        raise InputError(
            f"config key '{key}.mask_channel' is true, but no pixels are masked; write 'target: "
            "blind_spot', or leave it out"
        )
    if method.neighbourhood % 2 == 0:
        raise InputError(
            f"config key '{key}.neighbourhood' is {method.neighbourhood}, but must be odd to have "
            "the masked pixel in its centre; write 11 or 5"
        )
    if method.each_image and not (method.masks_grid and method.alpha == 1 and not method.init):
        raise InputError(
            f"config key '{key}.each_image' is true, which is for denoising only and needs a grid "
            "that leaves pixels for validation; write 'target: blind_spot', 'masking: "
            "grid_interpolate' and 'alpha: 1', without 'init'"
        )
    if method.struct_mask is not None:
        _check_struct_mask(method, method.struct_mask, key)


def _check_struct_mask(method: Method, mask: Sequence[Sequence[int]], key: str) -> None:
    rows, columns = len(mask), len(mask[0])
    if method.masks_grid or method.target != "blind_spot":
        raise InputError(
            f"config key '{key}.struct_mask' needs 'target: blind_spot' and a masking other than a "
            "grid; leave it out, or change these"
        )
    if any(len(row) != columns for row in mask) or not rows % 2 or not columns % 2:
        raise InputError(
            f"config key '{key}.struct_mask' must have an odd number of rows of the same odd "
            "length, such as [[1, 1, 1]]"
        )
    if mask[rows // 2][columns // 2] != 1:
        raise InputError(f"config key '{key}.struct_mask' has a 0 in its centre; write a 1 there")


def _check_downscale(method: Method, downscale: float | str, key: str, recipe_key: str) -> None:
    """Raise InputError unless a method can read images of another size."""
    if method.masks_grid:
        raise InputError(
            f"config key '{recipe_key}.downscale' is {downscale}, but {key} masks a grid of single "
            "pixels ('masking'); write 'downscale: 1'"
        )
    source = PRETRAINED.get(method.init or "")
    if downscale == "auto" and (method.init is None or (source and source.dimensions == 3)):
        raise InputError(
            f"config key '{recipe_key}.downscale' is 'auto', but {key} does not start from a "
            "network for 2D images that knows how large objects are ('init'); write a number, such "
            "as 1"
        )


def _check_rehearse(method: Method, recipe: Recipe, key: str, recipe_key: str) -> None:
    """Raise InputError unless a method rehearses what ``rehearse`` names."""
    start = f"config key '{key}.rehearse' is '{method.rehearse}', but"
    if method.init in PRETRAINED:
        raise InputError(
            f"{start} methods that start from a pretrained network ('init: {method.init}') "
            "rehearse what that was trained on; leave 'rehearse' out"
        )
    if not method.segments:
        raise InputError(f"{start} {key} only denoises (alpha 1); leave 'rehearse' out")
    if not recipe.rehearsal:
        raise InputError(
            f"{start} '{recipe_key}.rehearsal' is 0; raise it, for example to 0.5, or leave "
            "'rehearse' out"
        )


def _check_init(
    method: Method, source: Method, key: str, recipe_of: Callable[[Method], Recipe]
) -> None:
    """Raise InputError unless both methods have the same network and size."""
    wanted, found = (
        (each.network, recipe.depth, recipe.filters, each.mask_channel, recipe.instances)
        for each, recipe in ((method, recipe_of(method)), (source, recipe_of(source)))
    )
    if wanted != found:
        raise InputError(
            f"config key '{key}.init' names '{source.name}', whose network (name, depth, filters, "
            f"mask channel, instances) is {found}, not {wanted}; make them the same"
        )


def _check_pretrained(
    method: Method, source: Pretrained, key: str, recipe: Recipe, recipe_key: str
) -> None:
    """Raise InputError unless a method has the network that its init was pretrained with."""
    if method.network != source.network or method.mask_channel:
        raise InputError(
            f"config key '{key}.init' names '{method.init}', a network '{source.network}' without "
            f"mask channel; write 'network: {source.network}' and leave 'mask_channel' out"
        )
    if (recipe.depth, recipe.filters) != (source.depth, source.filters):
        raise InputError(
            f"config key '{key}.init' names '{method.init}', a network with depth {source.depth} "
            f"and {source.filters} filters, but '{recipe_key}' has depth {recipe.depth} and "
            f"{recipe.filters} filters; take the recipe '{source.recipe}'"
        )
    if recipe.instances != source.instances:
        raise InputError(
            f"config key '{key}.init' names '{method.init}', which was trained with 'instances: "
            f"{source.instances}', but '{recipe_key}' has 'instances: {recipe.instances}'; take "
            f"the recipe '{source.recipe}'"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
