"""Towers as a data set by name: rendered when first asked for, kept as packs."""

from pathlib import Path

from genesis_rl.data.cache import pack_folder
from genesis_rl.data.pack import Pack
from genesis_rl.towers.gl import require_gl
from genesis_rl.towers.plan import Plan, RenderConfig
from genesis_rl.towers.record import record_packs
from genesis_rl.worlds import from_options


def open_towers(
    root: Path,
    split: str,
    *,
    scenarios: int = 1600,
    num_images: int | None = None,
    **options: object,
) -> Pack:
    """Open a split of rendered towers; all splits are rendered first if they are missing.

    Args:
        root: folder of all data sets.
        split: "train", "validation" or "test".
        scenarios: towers of all splits together; each is seen from every camera.
        num_images: most images that the caller uses. Whole towers are rendered all the same, since
            the set is one for all callers.
        **options: image_size, family, heights, rule, cameras, colours, simulate and seed of
            `RenderConfig`.

    Raises:
        ValueError: for a bad value of an option.
        TypeError: for an option that there is not.
        OSError: if the pack cannot be written.
        RuntimeError: if there is no OpenGL library.
    """
    if num_images is not None and num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}.")
    config = from_options(RenderConfig, {"out": root, "scenarios": scenarios, **options})
    key = {**Plan(config).key, "scenarios": scenarios, "image_size": config.image_size}
    folder = pack_folder(root, "towers", "all", key)
    if not (folder / split).is_dir():
        require_gl()
        record_packs(from_options(RenderConfig, {**options, "out": folder, "scenarios": scenarios}))
    return Pack.open(folder / split)
