"""Instance labels as the three classes that the networks learn: background, foreground, border."""

import torch

from denoiseg_flow.data.neighbours import neighbours

BACKGROUND, FOREGROUND, BORDER = 0, 1, 2
CLASSES = ("background", "foreground", "border")
IGNORE = -1


def encode_classes(labels: torch.Tensor) -> torch.Tensor:
    """Return the class of every pixel.

    The border is the outer boundary of every object, and wins over the foreground where objects
    touch (DenoiSeg, Buchholz, Prakash et al. 2020): the pixels of scikit-image's
    ``find_boundaries(mode="outer")``. Pixels with a negative label are unknown to the annotator
    and become ``IGNORE``: neither the loss nor a score counts them.

    Parameters
    ----------
    labels
        Instance labels ([z,] y, x), signed integers: 0 background, positive objects, negative
        ignored.

    Returns
    -------
    int8 tensor of ``BACKGROUND``, ``FOREGROUND``, ``BORDER`` and ``IGNORE``, of the same shape and
    on the same device.
    """
    objects = labels.clamp(min=0)
    sides, corners = (neighbours(labels.dim(), corners) for corners in (False, True))
    # Border is what differs from a pixel beside it, and has an object other than its own at a side,
    # an edge or a corner.
    differs, meets = torch.zeros((2, *labels.shape), dtype=torch.bool, device=labels.device)
    for one, other in sides:
        change = objects[one] != objects[other]
        differs[one] |= change
        differs[other] |= change
    for one, other in sides + corners:
        change = objects[one] != objects[other]
        meets[one] |= change & (objects[other] > 0)
        meets[other] |= change & (objects[one] > 0)
    classes = torch.where(objects > 0, FOREGROUND, BACKGROUND).to(torch.int8)
    classes[differs & meets] = BORDER
    classes[labels < 0] = IGNORE
    return classes
