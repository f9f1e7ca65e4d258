"""Convert lengths in any unit to micrometres."""

import math

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
_FACTORS = {name: factor for names, factor in _MICROMETRES.items() for name in names}

# Plausible pixel sizes: from a tenth of an atom to a metre.
_SMALLEST, _LARGEST = 1e-5, 1e6


def micrometres(length: object, unit: object) -> float | None:
    """Return a length in micrometres, or None if it is no plausible pixel size.

    Parameters
    ----------
    length
        A number, or text with a number.
    unit
        Symbol or name, in upper or lower case.
    """
    factor = _FACTORS.get(str(unit).lower(), _FACTORS.get(str(unit)))
    try:
        found = float(length) * factor  # type: ignore[arg-type,operator]  # metadata hold anything
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and _SMALLEST <= found <= _LARGEST else None
