"""Mistakes in a study file, in words for people who wrote it and know nothing of pydantic."""

import difflib
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# lists of a fixed length, and what stands in them
_NUMBERS = {
    "bounds": "must be four numbers: west, south, east, north",
    "valid_range": "must be two numbers: lowest, highest",
}


def explain(error: ValidationError, content: dict, keys: Mapping[str, Sequence[str]]) -> str:
    """Return one line a mistake, layers by name instead of position.

    Parameters
    ----------
    error : ValidationError
        What pydantic found.
    content : dict
        The study file's content.
    keys : mapping
        Keys that may stand in each part of a study file; those of its top level under "".
    """
    mistakes = error.errors()
    lines = []
    for mistake in mistakes:
        loc = mistake["loc"]
        below = any(loc == other["loc"][: len(loc)] != other["loc"] for other in mistakes)
        if mistake["type"] == "too_short" and below:
            continue  # every entry is wrong, and has a line of its own
        place, message = _in_our_words(mistake, keys)
        if len(place) > 1 and place[0] == "layers" and isinstance(place[1], int):
            entry = content["layers"][place[1]]
            named = entry.get("name") if isinstance(entry, dict) else None
            place[1] = repr(named) if named else f"number {place[1] + 1}"
        lines.append(f"  {' > '.join(str(part) for part in place) or 'study'}: {message}")
    return "\n".join(dict.fromkeys(lines))


def _in_our_words(mistake: ErrorDetails, keys: Mapping[str, Sequence[str]]) -> tuple[list, str]:
    """Return where a mistake is and what to do about it; rare kinds keep pydantic's message."""
    place = [part for part in mistake["loc"] if part != "[key]"]
    kind, given = mistake["type"], mistake["input"]
    # always the third part: a region or target may itself be called bounds
    if len(place) > 2 and place[2] in _NUMBERS and kind not in ("finite_number", "value_error"):
        return place[:3], _NUMBERS[place[2]]
    if kind == "extra_forbidden":
        return place, "no such key; " + _known_keys(place, keys)
    if kind == "missing":
        return place[:-1], f"`{place[-1]}` is missing"
    if kind in ("tuple_type", "list_type"):
        if place == ["layers"]:
            return place, "must be a list, each layer after a dash: `- name: gravity`"
        return place, f"must be a list, e.g. [{given if isinstance(given, str | int) else 'Au'}]"
    if kind == "string_type" and place[-1] == "crs" and type(given) is int:
        return place, f"must be text; write EPSG:{given}"
    if kind == "string_type":
        return place, "must be text; put it in quotes"
    if kind == "string_pattern_mismatch":
        if "_-" in mistake["ctx"]["pattern"]:
            return place, "letters, digits, _ and - only, starting with a letter or digit"
        return place, "letters, digits and _ only, starting with a letter"
    return place, mistake["msg"].removeprefix("Value error, ")


def _known_keys(place: list, keys: Mapping[str, Sequence[str]]) -> str:
    """Offer the key that was meant where one is unknown, or all there are at that place."""
    known = [key for key in keys[place[0] if len(place) > 1 else ""] if key != "path"]
    near = difflib.get_close_matches(str(place[-1]).lower(), known, n=1, cutoff=0.7)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"


def first_lines(error: Exception, count: int = 2) -> str:
    """Return the first lines of an error that are not empty, in one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:count])
