"""Units of positions: pandas knows none, and all that asks for positions wants degrees."""

import re
from typing import Any


def to_degrees(name: str, unit: Any) -> float:
    """By what to multiply ``ra`` or ``dec`` in a unit of astropy; a ValueError where that is none of angles."""
    from astropy.units import Unit

    text = str(unit).strip("- ")  # some write --- for none
    one, words = text.lower().removesuffix("s"), re.findall("[a-z]+", text.lower())
    if name == "ra" and one in ("h", "hr", "hour", "hourangle"):
        return 15.0
    for known in (unit, Unit(text.lower(), parse_strict="silent"), Unit(one, parse_strict="silent")):
        if known.physical_type == "angle":
            return known.to("deg")
    if not words or words[0] in ("none", "n", "na", "unitless") or any(word.startswith("deg") for word in words):
        return 1.0  # such as degrees (J2000)
    raise ValueError(f"`{name}` is in {text!r}, which is no known unit of angles: change that to 'deg', if it is "
                     "degrees")  # fmt: skip
