"""Conversion of records to packs: content, caching, resuming, damage."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.data.convert import convert
from genesis_rl.data.pack import Pack
from genesis_rl.data.readers import DamagedRecord, Record

SIZE = 8
N = 300


@dataclass
class Numbered:
    """Reader of constant images; some damaged, of another size, or ending the process."""

    masks: bool = True
    damaged: tuple[int, ...] = ()
    small: tuple[int, ...] = ()
    kill_at: int | None = None
    size: tuple[int, int] = (SIZE, SIZE)
    split: str = "train"
    asked: list[int] = field(default_factory=list)

    @property
    def meta(self) -> dict[str, Any]:
        return {"dataset": "numbered", "split": self.split, "levels": (1, 2)}

    def __len__(self) -> int:
        return N

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        self.asked.append(start)
        for number in range(start, N):
            if number == self.kill_at:
                raise KeyboardInterrupt
            if number in self.damaged:
                yield DamagedRecord(f"numbers, record {number}", "not a number")
                continue
            size = (4, 4) if number in self.small else self.size
            image = np.full((*size, 3), number % 256, np.uint8)
            mask = np.zeros(size, np.uint8)
            mask[: size[0] // 2] = number % 5
            factors: dict[str, Any] = {"number": number, "pair": np.array([number, -number])}
            yield Record(image, mask if self.masks else None, factors, f"numbers, record {number}")


def check(pack: Pack, numbers: list[int]) -> None:
    assert pack.images[:, 0, 0, 0].tolist() == [number % 256 for number in numbers]
    assert (pack.images == pack.images[:, :1, :1, :1]).all()
    assert pack.masks is not None
    assert pack.masks[:, 0, 0].tolist() == [number % 5 for number in numbers]
    assert not pack.masks[:, -1].any()
    assert pack.factors["number"].tolist() == numbers
    assert pack.factors["pair"][:, 1].tolist() == [-number for number in numbers]


def test_records_become_a_pack(tmp_path: Path) -> None:
    source = Numbered()
    pack = convert(source, tmp_path / "pack", image_size=SIZE)
    check(pack, list(range(N)))
    assert pack.meta["dataset"] == "numbered" and pack.meta["damaged"] == 0
    assert sorted(path.name for path in pack.folder.iterdir()) == [
        *("factors.npz", "images.npy", "masks.npy", "meta.json"),
    ]
    again = convert(source, tmp_path / "pack", image_size=SIZE)
    assert len(again) == N and source.asked == [0]  # it was not read again


def test_the_first_images_only(tmp_path: Path) -> None:
    pack = convert(Numbered(), tmp_path / "pack", image_size=SIZE, num_images=130)
    check(pack, list(range(130)))


def test_data_without_masks(tmp_path: Path) -> None:
    pack = convert(Numbered(masks=False), tmp_path / "pack", image_size=SIZE)
    assert pack.masks is None and len(pack) == N


# Batches are of 128 good records: the first ends with number 128, the second with 258.
@pytest.mark.parametrize(
    ("kills", "resumed_at"),
    [((150,), 129), ((10, 129, 299), 259), ((258, 258), 129), ((10,), 0)],
)
def test_a_killed_conversion_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: tuple[int, ...], resumed_at: int
) -> None:
    monkeypatch.setattr("genesis_rl.data.pack._CHECKPOINT_SECONDS", 0.0)
    damaged = (3, 140, 141)
    for kill_at in kills:
        with pytest.raises(KeyboardInterrupt):
            convert(
                Numbered(damaged=damaged, kill_at=kill_at),
                tmp_path / "pack",
                image_size=SIZE,
                on_damage="skip",
            )
        assert not (tmp_path / "pack").exists()
        partial = tmp_path / ".pack.genesis_rl" / "partial"
        if partial.exists():  # possible rest of an interrupted write
            (partial / ".factors-000007.npz.genesis_rl").mkdir(exist_ok=True)
    source = Numbered(damaged=damaged)
    pack = convert(source, tmp_path / "pack", image_size=SIZE, on_damage="skip")
    assert source.asked == [resumed_at]
    check(pack, [number for number in range(N) if number not in damaged])
    assert pack.meta["damaged"] == 3
    assert len(list(pack.folder.iterdir())) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_other_data_start_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis_rl.data.pack._CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        convert(Numbered(kill_at=200), tmp_path / "pack", image_size=SIZE)
    source = Numbered(split="test")
    check(convert(source, tmp_path / "pack", image_size=SIZE), list(range(N)))
    assert source.asked == [0]


@pytest.mark.parametrize("name", ["journal.json", "images.npy", "factors-000000.npz"])
def test_a_damaged_rest_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("genesis_rl.data.pack._CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        convert(Numbered(kill_at=200), tmp_path / "pack", image_size=SIZE)
    path = tmp_path / ".pack.genesis_rl" / "partial" / name
    path.write_bytes(path.read_bytes()[:-20])
    source = Numbered()
    check(convert(source, tmp_path / "pack", image_size=SIZE), list(range(N)))
    assert source.asked == [0]


def test_damage_stops_or_is_counted(tmp_path: Path) -> None:
    source, folder = Numbered(damaged=(0, 7)), tmp_path / "pack"
    with pytest.raises(DamagedRecord, match=r"^numbers, record 0 .*not a number"):
        convert(source, folder, image_size=SIZE)
    assert not folder.exists()
    pack = convert(source, folder, image_size=SIZE, on_damage="skip")
    check(pack, [number for number in range(N) if number not in (0, 7)])
    assert json.loads((folder / "meta.json").read_text())["damaged"] == 2
    with pytest.raises(ValueError, match=" 2 damaged"):
        convert(source, folder, image_size=SIZE)


def test_nothing_but_damage_is_no_pack(tmp_path: Path) -> None:
    source = Numbered(damaged=tuple(range(N)))
    with pytest.raises(ValueError, match="300 records"):
        convert(source, tmp_path / "pack", image_size=SIZE, on_damage="skip")
    assert not (tmp_path / "pack").exists()


def test_mixed_sizes_are_named_or_fitted(tmp_path: Path) -> None:
    source = Numbered(small=(5, 200))
    message = r"^numbers, record 5 .*4 x 4 .*8 x 8"
    with pytest.raises(DamagedRecord, match=message):
        convert(source, tmp_path / "pack", image_size=SIZE)
    pack = convert(source, tmp_path / "skipped", image_size=SIZE, on_damage="skip")
    assert pack.meta["damaged"] == 2
    check(convert(source, tmp_path / "crop", image_size=SIZE, resize="crop"), list(range(N)))


def test_images_and_masks_are_brought_to_the_size(tmp_path: Path) -> None:
    stretched = convert(Numbered(size=(16, 20)), tmp_path / "stretch", image_size=SIZE)
    check(stretched, list(range(N)))
    boxed = convert(Numbered(size=(16, 32)), tmp_path / "box", image_size=SIZE, resize="letterbox")
    assert boxed.masks is not None
    # The frame fills rows 2 to 5, its upper half rows 2 and 3.
    assert boxed.masks[4, :, 0].tolist() == [0, 0, 4, 4, 0, 0, 0, 0]
    assert boxed.images[4, :, 0, 0].tolist() == [0, 0, 4, 4, 4, 4, 0, 0]
    with pytest.raises(ValueError, match=r'resize="none".* 16 x 16'):
        convert(Numbered(size=(16, 16)), tmp_path / "none", image_size=SIZE, resize="none")


def test_another_pack_in_the_place_is_told(tmp_path: Path) -> None:
    convert(Numbered(), tmp_path / "pack", image_size=SIZE)
    with pytest.raises(ValueError, match=r"^split "):
        convert(Numbered(split="test"), tmp_path / "pack", image_size=SIZE)
    with pytest.raises(ValueError, match=r"^image_size "):
        convert(Numbered(), tmp_path / "pack", image_size=16)


def test_bad_arguments(tmp_path: Path) -> None:
    options: Any
    for options, message in (
        ({"on_damage": "ignore"}, r"^on_damage "),
        ({"image_size": 0}, r"^image_size "),
        ({"num_images": 0}, r"^num_images "),
        ({"resize": "zoom"}, "resize"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(Numbered(), tmp_path / "pack", **{"image_size": SIZE, **options})
