"""Slots keep their places: shuffled objects come back, in whatever units, episode by episode."""

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.perception.alignment import SlotAligner

N, K, T = 3, 6, 12
WIDTHS = (4, 3, 3)
EVERY = np.arange(N)


def objects(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Objects (T, N, K, D): z_m and geometry drift, z_c is what they look like, both with noise."""
    place = np.cumsum(rng.normal(0, 0.03, (T, N, K, 2)), axis=0) + rng.uniform(-1, 1, (N, K, 2))
    look = np.broadcast_to(rng.normal(size=(N, K, 3)), (T, N, K, 3))
    shape = np.broadcast_to(rng.normal(size=(N, K, 2)), (T, N, K, 2))
    area = np.full((T, N, K, 1), 0.1)
    slots = np.concatenate([place, shape, look, place, area], axis=-1)
    return (slots + rng.normal(0, 0.02, slots.shape)).astype(np.float32)


@pytest.mark.smoke
def test_shuffled_objects_come_back() -> None:
    rng = np.random.default_rng(0)
    aligner = SlotAligner(N, K, WIDTHS)
    truth = objects(rng)
    for t, slots in enumerate(truth):
        shuffles = rng.permuted(np.tile(np.arange(K), (N, 1)), axis=1)
        if t == 0:
            shuffles[:] = np.arange(K)
        shuffled = np.take_along_axis(slots, shuffles[..., None], axis=1)
        order = aligner.follow(shuffled, EVERY, np.full(N, t == 0))
        assert np.array_equal(np.take_along_axis(shuffles, order, axis=1), [np.arange(K)] * N)


def test_units_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(T, N, K, sum(WIDTHS))).astype(np.float32)
    units = np.repeat([100, 0.01, 1], WIDTHS).astype(np.float32)
    plain, scaled = SlotAligner(N, K, WIDTHS), SlotAligner(N, K, WIDTHS)
    for t, slots in enumerate(truth):
        first = np.full(N, t == 0)
        want = plain.follow(slots, EVERY, first)
        assert np.array_equal(scaled.follow(slots * units, EVERY, first), want)


def test_looks_tell_objects_that_pass_one_another() -> None:
    aligner = SlotAligner(1, 2, (1, 2))
    looks, places = np.array([[-3], [3]]), np.array([[0.0, 0.1], [0.0, -0.1]])
    before = np.concatenate([looks, places], -1)[None].astype(np.float32)
    after = np.concatenate([looks, 0.4 * places[::-1]], -1)[None].astype(np.float32)
    one, start = np.zeros(1, np.intp), np.ones(1, np.bool_)
    aligner.follow(before, one, start)
    assert aligner.follow(after, one, ~start).tolist() == [[0, 1]]


def test_places_tell_objects_that_look_the_same() -> None:
    aligner = SlotAligner(1, 3, (1, 2))
    places = np.array([[-0.8, 0.0], [0.0, 0.5], [0.8, -0.4]])
    looks = np.ones((3, 1))
    slots = np.concatenate([looks, places], -1)[None].astype(np.float32)
    one, start = np.zeros(1, np.intp), np.ones(1, np.bool_)
    aligner.follow(slots, one, start)
    moved = slots[:, [2, 0, 1]] + np.array([0, 0.05, -0.05], np.float32)
    assert aligner.follow(moved, one, ~start).tolist() == [[1, 2, 0]]


def test_hidden_objects_return_to_their_slots() -> None:
    """An object is hidden for some frames, in which another one moves and a third appears."""
    rng = np.random.default_rng(3)
    looks = rng.normal(size=(3, 3))
    one, start = np.zeros(1, np.intp), np.ones(1, np.bool_)

    def frame(*rows: tuple[int, float]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        slots = [[*looks[look], place, 0] for look, place in rows]
        slots += [[9, 9, 9, 0, 0]] * (4 - len(rows))
        return np.array([slots], np.float32), np.arange(4)[None] < len(rows)

    def follow(aligner: SlotAligner, *rows: tuple[int, float], first: bool = False) -> list[int]:
        slots, present = frame(*rows)
        order = aligner.follow(slots, one, start & first, present)
        return [int(index) for index in order[0]]

    aligner = SlotAligner(1, 4, (3, 2))
    assert follow(aligner, (0, -0.5), (1, 0.5), first=True)[:2] == [0, 1]
    assert follow(aligner, (1, 0.45))[1] == 0
    assert follow(aligner, (1, 0.4), (2, 0.0)).index(1) >= 2  # not in the place of the hidden one
    assert follow(aligner, (2, 0.0), (1, 0.35), (0, -0.5))[:2] == [2, 1]
    assert follow(aligner, (1, 0.3), (0, -0.5), first=True)[:2] == [0, 1]  # another episode


def test_environments_and_episodes_are_apart() -> None:
    rng = np.random.default_rng(2)
    slots = rng.normal(size=(N, K, sum(WIDTHS))).astype(np.float32)
    aligner = SlotAligner(N, K, WIDTHS)
    same = [list(range(K))]
    assert aligner.follow(slots, EVERY, np.ones(N, np.bool_)).tolist() == same * N
    back = slots[:, ::-1]
    # The second environment starts an episode, the last is not in this batch.
    order = aligner.follow(back[:2], EVERY[:2], np.array([False, True]))
    assert order.tolist() == [same[0][::-1], same[0]]
    # What each remembers: as at first, the new episode's, as at first.
    order = aligner.follow(slots[[2, 1, 0]], EVERY[[2, 1, 0]], np.zeros(N, np.bool_))
    assert order.tolist() == [same[0], same[0][::-1], same[0]]


@pytest.mark.parametrize("value", [0.0, 1e30, -1e-30])
def test_slots_that_are_all_alike_stay_in_some_order(value: float) -> None:
    aligner = SlotAligner(1, K, WIDTHS)
    slots = np.full((1, K, sum(WIDTHS)), value, np.float32)
    for first in (True, False):
        order = aligner.follow(slots, np.zeros(1, np.intp), np.array([first]))
        assert sorted(order[0].tolist()) == list(range(K))
