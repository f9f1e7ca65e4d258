"""Whether acquisitions of the same fields differ in more than their noise."""

from collections.abc import Iterable, Iterator

import numpy as np

from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import centre_crop, middle_plane, open_image, open_repeats
from denoiseg_flow.evaluation.noise_structure import CENTRE
from denoiseg_flow.findings import Finding, count

BRIGHTER = 0.1  # difference of the means, in standard deviations of the image
REACH = 5  # largest shift that is looked for, in pixels
CERTAIN = 5  # gain in correlation by a shift, in standard errors of a correlation


def compare_acquisitions(prepared: PreparedData, names: Iterable[str]) -> Iterator[Finding]:
    """Yield findings about the further acquisitions of images; none for images without any.

    The first channel is compared, in the centre of the middle plane.
    """
    unlike, shifts = [], {}
    for name in names:
        if not prepared.repeats(name).exists():
            continue
        first, *others = (
            centre_crop(middle_plane(image[0]), CENTRE).astype(np.float64)
            for image in (
                open_image(prepared.image(name)),
                *open_repeats(prepared.repeats(name)),
            )
        )
        if any(abs(each.mean() - first.mean()) > BRIGHTER * first.std() for each in others):
            unlike.append(name)
        if shift := max(find_shift(first, each) for each in others):
            shifts[name] = shift
    if unlike:
        yield Finding(
            "warning",
            "brightness of acquisitions",
            f"In {count(len(unlike), 'image')}, the mean of another acquisition differs from "
            f"that of the image by more than {BRIGHTER:.0%} of the image's standard deviation, as "
            "after bleaching. Networks that learn from it also learn this difference, and scores "
            "against the other acquisitions contain it: correct it in the files.",
            tuple(unlike),
        )
    if shifts:
        yield Finding(
            "warning",
            "shifted acquisitions",
            f"{count(len(shifts), 'image')} and another acquisition are shifted against each "
            f"other, by up to {max(shifts.values())} pixels. Networks that learn from it blur: "
            "register the acquisitions.",
            tuple(shifts),
        )


def find_shift(first: np.ndarray, second: np.ndarray) -> int:
    """Return by how many pixels (y or x, at most REACH) two planes are shifted; 0 in doubt."""
    standard = [(each - each.mean()) / (each.std() or 1.0) for each in (first, second)]
    one, other = map(np.fft.rfft2, standard)
    correlation = np.fft.irfft2(one.conj() * other, first.shape) / first.size
    reach = min(REACH, (min(first.shape) - 1) // 2)
    near = np.arange(-reach, reach + 1)
    window = correlation[np.ix_(near, near)]
    place = np.unravel_index(window.argmax(), window.shape)
    gain = window[place] - window[reach, reach]
    error = np.sqrt(max(1 - window[place] ** 2, 0) / first.size)
    return int(abs(near[list(place)]).max()) if gain > CERTAIN * error else 0
