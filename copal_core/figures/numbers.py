"""Number formats for people: three significant figures and a unit."""

from __future__ import annotations

import math

MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1024.0**4, "TiB"), (1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"))


def is_missing(value: float | None) -> bool:
    """Return whether a value is None, NaN or infinite, and so cannot be drawn."""
    return value is None or not math.isfinite(value)


def compact(value: float | None) -> str:
    """Format with three significant figures, and with a power of ten outside 0.001 to 99,999."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = float(f"{abs(value):.2e}")  # rounded, because 99.99 is shown as 100
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e5:
        exponent = math.floor(math.log10(size))
        return f"{value / 10.0**exponent:.2f}×10{power(exponent)}".replace("-", "−", 1 if value < 0 else 0)
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}".replace("-", "−")


def factor(value: float) -> str:
    """Format a ratio without trailing zeros: ×10, ×0.01, ×1.26."""
    text = compact(value)
    return f"×{text.rstrip('0').rstrip('.') if '.' in text and '×' not in text else text}"


def signed(value: float | None) -> str:
    """Format as `compact` does, with the sign always shown."""
    text = compact(value)
    return text if is_missing(value) or not value or value < 0 else f"+{text}"


def power(exponent: int) -> str:
    """Format an exponent in superscript digits."""
    return str(exponent).translate(_SUPERSCRIPT)


def percent(share: float | None, decimals: int = 1) -> str:
    """Format a share of one as a percentage without trailing zeros."""
    if is_missing(share):
        return MISSING
    text = f"{100 * float(share or 0.0):.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def count(value: float | None) -> str:
    """Format a count with k, M, B or T: 134.5 M."""
    if is_missing(value):
        return MISSING
    return _scaled(float(value or 0), _COUNTS, f"{int(value or 0)}", 1000)


def several(number: int, noun: str) -> str:
    """Format a number with its noun: 1 run, 2 runs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size(value: float | None) -> str:
    """Format bytes with a binary unit: 513 MiB."""
    if is_missing(value):
        return MISSING
    return _scaled(float(value or 0), _BYTES, f"{int(value or 0)} B", 100)


def duration(seconds: float | None) -> str:
    """Format seconds: 40 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _scaled(value: float, units: tuple[tuple[float, str], ...], plain: str, largest: float) -> str:
    for unit, name in units:
        if abs(value) >= unit:
            scaled = value / unit
            decimals = 0 if scaled >= largest or scaled % 1 < 0.05 else 1
            return f"{scaled:.{decimals}f} {name}"
    return plain
