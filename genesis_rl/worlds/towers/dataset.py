"""Rendered towers as a named dataset, cached as packs."""

from pathlib import Path

from genesis_rl.data.cache import pack_folder
from genesis_rl.data.pack import Pack
from genesis_rl.worlds.sprites import from_options
from genesis_rl.worlds.towers.gl import require_gl
from genesis_rl.worlds.towers.plan import Plan, RenderConfig
from genesis_rl.worlds.towers.record import record_packs


def open_towers(
    root: Path,
    split: str,
    *,
    scenarios: int = 1600,
    num_images: int | None = None,
    **options: object,
) -> Pack:
    """Open a split of rendered towers; render all splits if they are missing.

    Args:
        root: folder of all datasets.
        split: "train", "validation" or "test".
        scenarios: number of towers in all splits together; each is rendered from every camera.
        num_images: largest number of images used. Ignored: the dataset is the same for all callers.
        **options: image_size, family, heights, rule, cameras, colours, simulate and seed of
            `RenderConfig`.

    Raises:
        ValueError: for an invalid value of an option.
        TypeError: for an unknown option.
        OSError: if the pack cannot be written.
        RuntimeError: if no OpenGL library is installed, or a script without
            `if __name__ == '__main__'` starts the rendering in several processes.
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
