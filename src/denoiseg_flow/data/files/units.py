"""Lengths in micrometres, whatever unit a file gives them in."""

import math

_MICROMETRES = {
    ("pm", "picometer"): 1e-6,
    ("Å", "Å", "angstrom"): 1e-4,  # the letter and the sign
    ("nm", "nanometer"): 1e-3,
    # ImageJ escapes its µ, of which there are two: the sign and the Greek letter.
    ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"): 1.0,
    ("mm", "millimeter"): 1e3,
    ("cm", "centimeter"): 1e4,
    ("m", "meter"): 1e6,
}
_FACTORS = {name: factor for names, factor in _MICROMETRES.items() for name in names}

# Of a pixel, from a tenth of what atoms measure to a metre: others are no measurement.
_SMALLEST, _LARGEST = 1e-5, 1e6


def micrometres(length: object, unit: object) -> float | None:
    """Return a length in micrometres, or None if it or its unit cannot be that of a pixel.

    Parameters
    ----------
    length
        A number, or the text of one.
    unit
        Symbol or name, in any case.
    """
    factor = _FACTORS.get(str(unit).lower(), _FACTORS.get(str(unit)))
    try:
        found = float(length) * factor  # type: ignore[arg-type,operator]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and _SMALLEST <= found <= _LARGEST else None
