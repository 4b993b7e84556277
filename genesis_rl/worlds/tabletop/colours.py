"""Palette of multi-object Fetch, and the CIEDE2000 colour difference."""

import numpy as np
import numpy.typing as npt

#: Colours of the objects, RGB in 0..255.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 255, 0),
    (47, 79, 79),
    (139, 69, 19),
    (25, 25, 112),
    (0, 100, 0),
    (189, 183, 107),
    (72, 209, 204),
    (255, 0, 0),
    (255, 165, 0),
    (255, 255, 0),
    (199, 21, 133),
    (0, 0, 205),
    (0, 250, 154),
    (216, 191, 216),
    (255, 0, 255),
    (30, 144, 255),
)
#: Index of pure red in `PALETTE`.
RED = 7

_TO_XYZ = np.array(  # from linear sRGB, with the white point D65
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def rgb_to_lab(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Convert sRGB colours in 0..255, (..., 3), to CIE L*a*b* (white point D65), (..., 3)."""
    value = np.asarray(rgb, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _TO_XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(lab1: npt.ArrayLike, lab2: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Compute the CIEDE2000 difference of L*a*b* colours (Sharma et al., 2005).

    Args:
        lab1: (..., 3).
        lab2: (..., 3), broadcast against ``lab1``.

    Returns:
        (...), >= 0.
    """
    l1, a1, b1 = np.moveaxis(np.asarray(lab1, float), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(lab2, float), -1, 0)
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1 = np.degrees(np.arctan2(b1, a1 * stretch)) % 360
    h2 = np.degrees(np.arctan2(b2, a2 * stretch)) % 360
    grey = c1 * c2 == 0  # no hue
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    delta_l, delta_c = l2 - l1, c2 - c1
    delta_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = np.where(grey, h1 + h2, (h1 + turn / 2) % 360)
    angle = np.radians(mean_h)
    t = (
        1
        - 0.17 * np.cos(angle - np.radians(30))
        + 0.24 * np.cos(2 * angle)
        + 0.32 * np.cos(3 * angle + np.radians(6))
        - 0.20 * np.cos(4 * angle - np.radians(63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c = 1 + 0.045 * mean_c
    s_h = 1 + 0.015 * mean_c * t
    rotation = 60 * np.exp(-(((mean_h - 275) / 25) ** 2))  # degrees
    r_c = 2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    r_t = -np.sin(np.radians(rotation)) * r_c
    terms = delta_l / s_l, delta_c / s_c, delta_h / s_h
    square = terms[0] ** 2 + terms[1] ** 2 + terms[2] ** 2 + r_t * terms[1] * terms[2]
    return np.asarray(np.sqrt(np.maximum(square, 0)))
