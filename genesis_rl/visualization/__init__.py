"""Pictures, animations and curves of decompositions.

Pictures are uint8 arrays (rows, columns, 3), RGB. Files are written atomically.
"""

from genesis_rl.visualization.files import (
    curves,
    png_bytes,
    save_animation,
    save_gif,
    save_mp4,
    save_png,
)
from genesis_rl.visualization.grids import (
    Picture,
    Side,
    checkerboard,
    colour_masks,
    decomposition_grid,
    flow,
    join,
    margin,
    mosaic,
    over_checkerboard,
    overlay_masks,
    sample_grid,
    slot_colours,
    text_picture,
    to_pictures,
)

__all__ = [
    "Picture",
    "Side",
    "checkerboard",
    "colour_masks",
    "curves",
    "decomposition_grid",
    "flow",
    "join",
    "margin",
    "mosaic",
    "over_checkerboard",
    "overlay_masks",
    "png_bytes",
    "sample_grid",
    "save_animation",
    "save_gif",
    "save_mp4",
    "save_png",
    "slot_colours",
    "text_picture",
    "to_pictures",
]
