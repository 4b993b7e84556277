"""Data sets that are read from their original files, converted to packs once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genesis_rl.data.cache import pack_folder
from genesis_rl.data.convert import OnDamage, convert
from genesis_rl.data.gqn import GqnRooms
from genesis_rl.data.media import ImageFolder, VideoFolder
from genesis_rl.data.multi_object import ClevrWithMasks, MultiDSprites, ObjectsRoom, Tetrominoes
from genesis_rl.data.ocl_hdf5 import ObjectCentricHdf5
from genesis_rl.data.pack import Pack
from genesis_rl.data.sources import Source
from genesis_rl.frames import Resize
from genesis_rl.worlds import from_options


def _original(name: str, kind: type[Source], size: int) -> Callable[..., Pack]:
    def open_original(
        root: Path,
        split: str,
        *,
        source: str | Path | None = None,
        image_size: int = size,
        resize: Resize = "stretch",
        num_images: int | None = None,
        on_damage: OnDamage = "raise",
        **options: Any,
    ) -> Pack:
        # The default place is not part of the key, so that the root may be moved.
        place = None if source is None else str(Path(source).expanduser().resolve())
        folder = root / name / "original" if place is None else Path(place)
        reader = from_options(kind, {"folder": folder, "split": split, **options})
        key = {**reader.meta, "source": place, "size": image_size}
        key |= {"resize": resize, "limit": num_images}
        return convert(
            reader,
            pack_folder(root, name, split, key),
            image_size=image_size,
            resize=resize,
            num_images=num_images,
            on_damage=on_damage,
        )

    return open_original


#: Readers of original data sets by name, with the side of the images by default. A reader is a
#: dataclass that is made of `folder`, `split` and its own options.
READERS: dict[str, tuple[type[Source], int]] = {
    "gqn": (GqnRooms, 64),
    "multi_dsprites_dm": (MultiDSprites, 64),
    "objects_room": (ObjectsRoom, 64),
    "clevr_with_masks": (ClevrWithMasks, 128),
    "tetrominoes": (Tetrominoes, 32),
    "object_centric_library": (ObjectCentricHdf5, 64),
    "images": (ImageFolder, 64),
    "videos": (VideoFolder, 64),
}

#: Functions that open them, for `genesis_rl.data.DATASETS`. Options beside the reader's own:
#: source, the folder of the original files, by default the folder `original` beside the packs
#: (<root>/<name>/original); image_size; resize; num_images, at most so many, all by default;
#: on_damage, "raise" or "skip"; see `genesis_rl.data.convert.convert`.
ORIGINALS = {name: _original(name, kind, size) for name, (kind, size) in READERS.items()}
