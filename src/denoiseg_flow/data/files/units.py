"""Convert lengths in any unit to micrometres, and times to seconds."""

import math
from collections.abc import Mapping

_MICROMETRES = {
    ("pm", "picometer"): 1e-6,
    ("Å", "Å", "angstrom"): 1e-4,  # the letter and the sign
    ("nm", "nanometer"): 1e-3,
    # ImageJ escapes its µ; Unicode has two, the micro sign and the Greek letter.
    ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"): 1.0,
    ("mm", "millimeter"): 1e3,
    ("cm", "centimeter"): 1e4,
    ("m", "meter"): 1e6,
}
_SECONDS = {
    ("ns", "nanosecond"): 1e-9,
    ("us", "µs", "μs", "microsecond"): 1e-6,
    ("ms", "msec", "millisecond"): 1e-3,
    ("s", "sec", "second"): 1.0,
    ("min", "minute"): 60.0,
    ("h", "hour"): 3600.0,
    ("d", "day"): 86400.0,
}

# Plausible pixel sizes: from a tenth of an atom to a metre.
_SMALLEST, _LARGEST = 1e-5, 1e6
# Plausible time steps: from a nanosecond to three years.
_SHORTEST, _LONGEST = 1e-9, 1e8
_DIGITS = 10  # no pixel size is known to more, and beyond them are errors of rounding


def micrometres(length: object, unit: object) -> float | None:
    """Return a length in micrometres, or None if it is no plausible pixel size.

    Parameters
    ----------
    length
        A number, or text with a number.
    unit
        Symbol or name, in upper or lower case.
    """
    found = _converted(length, unit, _MICROMETRES)
    return found if found and _SMALLEST <= found <= _LARGEST else None


def seconds(time: object, unit: object) -> float | None:
    """Return a time in seconds, like :func:`micrometres`; None if it is no plausible step."""
    found = _converted(time, unit, _SECONDS)
    return found if found and _SHORTEST <= found <= _LONGEST else None


def _converted(
    value: object, unit: object, factors: Mapping[tuple[str, ...], float]
) -> float | None:
    """Return a value times the factor of its unit, rounded; None if one of them is unknown."""
    for case in (str(unit).lower(), str(unit)):
        for names, factor in factors.items():
            if case in names:
                try:
                    found = float(value) * factor  # type: ignore[arg-type]  # files hold anything
                except (TypeError, ValueError):
                    return None
                return float(f"{found:.{_DIGITS}g}") if math.isfinite(found) else None
    return None
