"""Choose the foreground threshold and the prominence of seeds on validation images."""

from collections.abc import Iterable

import numpy as np

from denoiseg_flow.evaluation.metrics import average_precision
from denoiseg_flow.methods.instances import PROMINENCE, label_instances
from denoiseg_flow.models.threshold import Threshold

# Candidates. The watershed separates objects by their seeds, so it can use lower thresholds than
# components without merging objects.
_STEPS = tuple(round(0.10 + 0.05 * step, 2) for step in range(19))
THRESHOLDS = {
    "components": _STEPS,
    "watershed": (0.01, 0.02, 0.05, *_STEPS[:-1], 0.98, 0.99),
    "distance": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
# The first of equally good ones is chosen. The less a network has learned, the more its distance
# varies within objects, and the more prominence seeds need; but in a short training it may as well
# stay so flat that only a low prominence finds any.
PROMINENCES = {
    "components": (PROMINENCE,),
    "watershed": (PROMINENCE,),
    "distance": (PROMINENCE, 0.2, 0.25, 0.4, 0.15, 0.5, 0.1, 0.05),
}

# On fewer images, the best threshold is further from the best one for other images than that of the
# network that the training started from.
FEW = 8


def choose_threshold(
    images: Iterable[tuple[np.ndarray, np.ndarray]],
    instances: str,
    known: Threshold | None = None,
) -> Threshold | None:
    """Return the threshold and prominence with the best mean average precision at IoU 0.5.

    Images without objects have no average precision and do not count, like in the reference
    implementation. Returns None if no image counts. For ties, see
    :mod:`~denoiseg_flow.methods.instances`.

    Parameters
    ----------
    images
        Maps (3 or 4, [z,] y, x) and instance labels ([z,] y, x) of each annotated validation image;
        read one image at a time.
    instances
        See :func:`~denoiseg_flow.methods.instances.label_instances`.
    known
        The only candidate, to measure its average precision.
    """
    thresholds, prominences = THRESHOLDS[instances], PROMINENCES[instances]
    if known:
        thresholds, prominences = (known.value,), (known.prominence,)
    scores = [
        [
            [
                average_precision(truth, labels)
                for labels in label_instances(maps, thresholds, instances, prominence)
            ]
            for prominence in prominences
        ]
        for maps, truth in images
        if (truth > 0).any()
    ]
    if not scores:
        return None
    of_both = np.mean(scores, axis=0)
    row = int(of_both.max(axis=1).argmax())
    means = of_both[row]
    best = np.flatnonzero(np.isclose(means, means.max()))
    ranges = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    widest = max(ranges, key=len)
    chosen = best[-1] if instances == "components" else widest[(len(widest) - 1) // 2]
    return Threshold(thresholds[chosen], float(means[chosen]), len(scores), prominences[row])
