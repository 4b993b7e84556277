"""Backgrounds, seeds, attention and local decoders on images with known objects."""

import itertools
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.models import GenesisConfig, GenesisSConfig, build_model
from genesis_rl.models.attention import SlotAttention, find_seeds, merge_touching
from genesis_rl.models.background import (
    OCCLUDER_SIZE,
    BackgroundNetwork,
    StaticBackground,
    background_distance,
    background_nll,
    foreground_gate,
    paste_occluders,
)
from genesis_rl.models.local import LocalDecoder
from genesis_rl.slots import Noise

SIDE = 32
# Row and column of the first pixel of squares of 6 pixels.
PLACES = ((3, 4), (3, 20), (22, 12))
OBJECTS: dict[str, Any] = {
    "image_size": SIDE,
    "num_slots": 5,
    "mask_latent_size": 7,
    "component_latent_size": 4,
    "posterior": "attention",
    "mask_decoder": "local",
    "component_decoder": "shaded",
    "mixture": "pixel",
    "sigma_x": 0.12,
    "prior_lstm_size": 8,
    "prior_mlp_size": 8,
}


def squares(colours: list[tuple[float, float, float]], grey: float = 0.2) -> Tensor:
    """One image (1, 3, SIDE, SIDE) with a square of each colour at PLACES."""
    image = torch.full((1, 3, SIDE, SIDE), grey)
    for (row, col), colour in zip(PLACES, colours, strict=False):
        image[0, :, row : row + 6, col : col + 6] = torch.tensor(colour)[:, None, None]
    return image


RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def attend(image: Tensor, num_slots: int = 4, **options: Any) -> Any:
    torch.manual_seed(0)
    attention = SlotAttention(SIDE, 4, num_slots, object_size=0.35, **options)
    with torch.no_grad():
        return attention(image, foreground_gate(image, torch.full_like(image, 0.2), 0.08))


def test_identical_objects_get_slots_of_their_own() -> None:
    found = attend(squares([RED, RED, RED]))
    expected = torch.tensor(PLACES).float().add(2.5) / (SIDE - 1) * 2 - 1
    nearest = torch.cdist(found.position[0, :3], expected).min(1)
    assert nearest.values.max() < 0.1
    assert nearest.indices.unique().numel() == 3
    assert found.log_mass[0, 3] < math.log(0.01)  # none left for the fourth slot


@pytest.mark.parametrize(("order", "first"), [("top_down", RED), ("bottom_up", BLUE)])
def test_slots_are_sorted_by_row_and_touching_colours_differ(order: Any, first: Any) -> None:
    image = squares([])
    image[0, :, 10:16, 8:14] = torch.tensor(RED)[:, None, None]
    image[0, :, 16:22, 8:14] = torch.tensor(BLUE)[:, None, None]
    found = attend(image, order=order)
    assert (found.position[0, 0, 0] < found.position[0, 1, 0]) == (order == "top_down")
    torch.testing.assert_close(found.colour[0, 0], torch.tensor(first), atol=0.02, rtol=0)


def test_order_of_hues_keeps_moving_objects_in_their_slots() -> None:
    for last in ((0.7, 0.72, 0.7), (0.0, 0.0, 0.0)):
        for colours in itertools.permutations([RED, BLUE, last]):
            found = attend(squares(list(colours)), order="hue")
            expected = torch.tensor([RED, BLUE, last])
            torch.testing.assert_close(found.colour[0, :3], expected, atol=0.02, rtol=0)
    pinkish = (0.9, 0.2, 0.25)
    rows = attend(squares([pinkish, RED, RED]), order="hue").position[0, :3, 0]
    assert rows[:2].max() < rows[2]  # one hue: by rows


@pytest.mark.parametrize(("threshold", "found"), [(0.4, False), (0.2, True)])
def test_objects_smaller_than_a_cell(threshold: float, found: bool) -> None:
    image = squares([])
    image[0, :, 10, 9] = torch.tensor(RED)  # a quarter of a cell
    slots = attend(image, seed_threshold=threshold)
    assert bool(slots.assignment[0, 0].sum() > 0.2) == found


@pytest.mark.parametrize(("hue_distance", "slots"), [(0.5, 1), (0.2, 2)])
def test_similar_hues_are_separated_at_a_smaller_distance(hue_distance: float, slots: int) -> None:
    image = torch.full((1, 3, SIDE, SIDE), 0.2)
    image[0, :, 10:16, 10:13] = torch.tensor([0.2, 0.9, 0.2])[:, None, None]
    image[0, :, 10:16, 13:16] = torch.tensor([0.2, 0.9, 0.6])[:, None, None]
    found = attend(image, hue_distance=hue_distance)
    assert (found.assignment.flatten(2).sum(2) > 1).sum() == slots


@pytest.mark.parametrize(("least_area", "slots"), [(0.03, 1), (0.01, 2)])
def test_objects_much_smaller_than_the_typical_one(least_area: float, slots: int) -> None:
    image = torch.full((1, 3, SIDE, SIDE), 0.2)
    image[0, :, 2:14, 2:14] = torch.tensor(RED)[:, None, None]
    image[0, :, 24:26, 24:26] = torch.tensor(BLUE)[:, None, None]
    torch.manual_seed(0)
    attention = SlotAttention(SIDE, 4, 4, object_size=0.8, least_area=least_area)
    with torch.no_grad():
        found = attention(image, foreground_gate(image, torch.full_like(image, 0.2), 0.08))
    assert (found.assignment.flatten(2).sum(2) > 0.5).sum() == slots


@pytest.mark.parametrize(("displacement", "found"), [(0, True), (1, False)])
def test_displaced_edges_of_the_background_are_no_objects(displacement: int, found: bool) -> None:
    background = torch.full((1, 3, SIDE, SIDE), 0.2)
    background[..., 16:] = 0.9
    image = background.roll(1, 3)
    image[..., 0] = 0.2
    image[0, :, 5:8, 5:8] = torch.tensor(RED)[:, None, None]
    gate = foreground_gate(image, background, 0.08, displacement=displacement)[0, 0]
    assert gate[5:8, 5:8].min() > 0.9
    assert bool(gate[:, 10:].max() > 0.9) == found


@pytest.mark.parametrize(("distance", "slots"), [(0.0, 2), (0.55, 1)])
def test_faces_of_an_object_are_merged(distance: float, slots: int) -> None:
    image = torch.full((1, 3, SIDE, SIDE), 0.2)
    image[0, :, 6:8, 4:10] = torch.tensor((0.9, 0.1, 0.1))[:, None, None]
    image[0, :, 8:12, 4:10] = torch.tensor((0.5, 0.3, 0.1))[:, None, None]
    found = attend(image, merge_distance=distance)
    assert (found.assignment.flatten(2).sum(2) > 0.5).sum() == slots


def test_twins_side_by_side_are_not_merged() -> None:
    maps = torch.zeros(1, 4, 8, 8)
    maps[0, 0, 0:4, 0:4], maps[0, 1, 0:4, 4:8] = 1, 1  # twins
    maps[0, 2, 4:5, 4:8] = 1  # a part of the second
    maps[0, 3, 4:8, 1:2] = 1  # as large, but long
    hue = F.normalize(torch.ones(1, 4, 3), dim=2)
    merged = merge_touching(maps.flatten(2), hue, 0.0, 0.1, 0.6).sum(2)
    assert merged[0].tolist() == [16.0, 20.0, 0.0, 4.0]
    assert merge_touching(maps.flatten(2), hue, 0.0, 0.1, 0.8).sum(2)[0, 0] == 36
    hue[0, 2] = F.normalize(torch.tensor(RED), dim=0)
    assert merge_touching(maps.flatten(2), hue, 0.0, 0.1, 0.6).sum(2)[0, 1] == 16


def test_no_foreground_has_no_seed() -> None:
    seeds = find_seeds(torch.rand(2, 50, 5), torch.zeros(2, 50), 3, 0.3)
    assert not seeds.present.any()
    assert seeds.point.isfinite().all()


def pairs(count: int, generator: torch.Generator, *, identical: bool) -> tuple[Tensor, Tensor]:
    """Draw images of two touching squares, brighter at the top left, with their centres' rows."""
    image = torch.full((count, 3, SIDE, SIDE), 0.2)
    palette = torch.tensor([RED, BLUE, (0.0, 1.0, 0.0)])
    shade = torch.linspace(1.0, 0.6, 7)[:, None] * torch.linspace(1.0, 0.8, 7)
    rows = torch.randint(1, SIDE - 15, (count,), generator=generator)
    for i, row in enumerate(rows.tolist()):
        col = int(torch.randint(1, SIDE - 8, (1,), generator=generator))
        first, second = torch.randperm(3, generator=generator)[:2].tolist()
        for top, colour in ((row, first), (row + 7, first if identical else second)):
            image[i, :, top : top + 7, col : col + 7] = palette[colour][:, None, None] * shade
    middles = torch.stack([rows + 10, rows + 3], 1).float() / (SIDE - 1) * 2 - 1
    return image, middles


def test_votes_learned_from_different_colours_separate_identical_objects() -> None:
    torch.manual_seed(0)
    # As large as both squares, so that positions alone do not separate identical squares.
    attention = SlotAttention(SIDE, 8, 3, object_size=0.9)
    generator = torch.Generator().manual_seed(0)
    twins, middles = pairs(16, generator, identical=True)

    def gate(images: Tensor) -> Tensor:
        return foreground_gate(images, torch.full_like(images, 0.2), 0.08)

    def missed() -> float:
        """Return the mean distance of the squares' centres from the nearest slot's position."""
        with torch.no_grad():
            found = attention(twins, gate(twins))
        place = found.position[..., 0].masked_fill(found.log_mass[..., 0] < -4, 9.0)
        return float((place[:, None] - middles[..., None]).abs().amin(2).mean())

    assert missed() > 0.15
    optimiser = torch.optim.Adam(attention.parameters(), lr=1e-2)
    for _ in range(150):
        images, _ = pairs(16, generator, identical=False)
        loss = attention(images, gate(images)).vote_loss.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert missed() < 0.05


def test_the_votes_loss_is_no_part_of_the_bound() -> None:
    torch.manual_seed(0)
    model = build_model(GenesisConfig(**OBJECTS, background="static"))
    model.fit_background(squares([]).repeat(3, 1, 1, 1))
    image = squares([RED, RED, BLUE])
    terms = model.elbo(image, sample=False)
    decoded = model.decode(model.infer(image))
    torch.testing.assert_close(terms.nll, model.nll(image, decoded))
    terms.nll.sum().backward()
    gradient = model.attention.attention.log_error.grad
    assert gradient is not None and gradient.abs() > 0


def test_touching_slots_of_one_hue_are_merged() -> None:
    maps = torch.zeros(1, 6, 8, 8)
    maps[0, 0, 0:2, 0:4] = 1  # two halves of a square
    maps[0, 2, 2:4, 0:4] = 1
    maps[0, 3, 4:6, 0:4] = 1  # below them, of another hue
    maps[0, 4, 0:4, 5:8] = 1  # of their hue, apart
    maps[0, 5, 4, 4] = 1  # touches the fourth with one cell
    hue = F.normalize(torch.tensor([RED, BLUE, RED, BLUE, RED, BLUE]), dim=1)
    hue[2] = F.normalize(hue[2] + torch.tensor([0.0, 0.05, 0.0]), dim=0)
    merged = merge_touching(maps.flatten(2), hue[None], 0.08).unflatten(2, (8, 8))
    torch.testing.assert_close(merged[0, 0], maps[0, 0] + maps[0, 2])
    assert merged[0, [1, 2]].sum() == 0  # the empty slot stays empty
    torch.testing.assert_close(merged[0, 4], maps[0, 4])
    torch.testing.assert_close(merged[0, 3], maps[0, 3] + maps[0, 5])
    torch.testing.assert_close(merged.sum(1), maps.sum(1))
    apart = merge_touching(maps.flatten(2), hue[None], 0.01)
    torch.testing.assert_close(apart[0, 2], maps[0, 2].flatten())


def test_slots_are_merged_along_a_chain() -> None:
    maps = torch.zeros(1, 5, 10, 10)
    for k, row in enumerate((0, 8, 4, 2, 6)):  # five stripes of one large object
        maps[0, k, row : row + 2] = 0.9
    hue = F.normalize(torch.tensor(RED), dim=0).expand(1, 5, 3)
    merged = merge_touching(maps.flatten(2), hue, 0.08)
    torch.testing.assert_close(merged[0, 0], maps[0].sum(0).flatten())
    assert merged[0, 1:].sum() == 0


def test_a_large_object_has_one_slot_if_slots_are_merged() -> None:
    image = torch.full((1, 3, SIDE, SIDE), 0.2)
    image[..., 3:29, 12:22] = torch.tensor(RED)[:, None, None]
    gate = foreground_gate(image, torch.full_like(image, 0.2), 0.08)

    def filled(merge_hue_distance: float) -> int:
        attention = SlotAttention(SIDE, 8, 5, 0.4, merge_hue_distance=merge_hue_distance)
        return int((attention(image, gate).assignment.sum((2, 3)) > 0.5).sum())

    assert filled(0.08) == 1 < filled(0.0)


def test_gates_are_zero_on_the_background() -> None:
    image = squares([RED])
    gate = foreground_gate(image, torch.full_like(image, 0.2), 0.08)
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[3:9, 4:10] = True
    assert (gate[0, 0][~inside] == 0).all()
    assert (gate[0, 0][inside] > 0.9).all()


def test_shadows_are_not_foreground() -> None:
    background = torch.tensor([0.6, 0.5, 0.3])[:, None, None].expand(1, 3, SIDE, SIDE)
    image = background.clone()
    image[..., 2:10, 2:10] *= 0.6  # a shadow
    image[..., 2:10, 12:20] *= 0.2  # darker than a shadow can be
    image[..., 12:20, 2:10] *= 1.4  # brighter than the background
    image[..., 12:20, 12:20] = torch.tensor(BLUE)[:, None, None] * 0.8
    corners = [(6, 6), (6, 16), (16, 6), (16, 16)]

    def shows_object(brightness: float) -> list[bool]:
        gate = foreground_gate(image, background, 0.04, brightness)[0, 0]
        return [bool(gate[place] > 0.5) for place in corners]

    assert shows_object(1.0) == [True] * 4
    assert shows_object(0.5) == [False, True, True, True]
    # A black background has no shadows.
    black = torch.zeros_like(image)
    assert foreground_gate(image, black, 0.04, 0.5).isfinite().all()
    torch.testing.assert_close(
        foreground_gate(image, black, 0.04, 0.5), foreground_gate(image, black, 0.04)
    )


def test_highlights_are_not_foreground() -> None:
    background = torch.tensor([0.6, 0.0, 0.3])[:, None, None].expand(1, 3, SIDE, SIDE)
    image = background.clone()
    for opacity, columns in ((0.3, slice(2, 10)), (0.9, slice(12, 20))):
        image[..., 2:10, columns] += opacity * (1 - image[..., 2:10, columns])
    image[..., 12:20, 2:10] *= 0.2  # darker
    image[..., 12:20, 12:20] = torch.tensor(BLUE)[:, None, None]
    corners = [(6, 6), (6, 16), (16, 6), (16, 16)]
    distance = background_distance(image, background, highlight_opacity=0.3)[0, 0]
    assert [bool(distance[place] > 0.04) for place in corners] == [False, True, True, True]
    # 0.6 more white is (0.4, 1, 0.7) * 0.6 brighter than the lightest highlight.
    rest = background[0, :, 6, 16] + 0.3 * (1 - background[0, :, 6, 16]) - image[0, :, 6, 16]
    torch.testing.assert_close(distance[6, 16], rest.square().sum())
    # The same where the background is in the highlight, and the image is not.
    swapped = background_distance(background, image, highlight_opacity=0.3)[0, 0]
    assert [bool(swapped[place] > 0.04) for place in corners] == [False, True, True, True]
    white = torch.ones_like(image)  # has no highlights
    torch.testing.assert_close(
        background_distance(image, white, highlight_opacity=0.5), background_distance(image, white)
    )


@pytest.mark.parametrize(("brightness", "in_shadow"), [(1.0, True), (0.5, False)])
def test_slots_of_a_model_do_not_attend_to_shadows(brightness: float, in_shadow: bool) -> None:
    scene = torch.tensor([0.6, 0.5, 0.3])[:, None, None].expand(3, SIDE, SIDE)
    image = scene.clone()[None]
    image[..., 3:9, 4:10] = torch.tensor(BLUE)[:, None, None]
    image[..., 15:21, 14:22] *= 0.6
    config = GenesisConfig(
        **OBJECTS, background="static", foreground_threshold=0.04, shadow_brightness=brightness
    )
    torch.manual_seed(0)
    model = build_model(config).eval()
    model.fit_background(scene.repeat(3, 1, 1, 1))
    z_m = model.infer(image).z_m[0, 1:]
    present = z_m[:, 3] > 0
    assert present.any()
    assert bool((z_m[present, 0] > 0).any()) == in_shadow  # a slot in the lower half


def test_an_outlier_costs_a_constant() -> None:
    image = torch.full((1, 3, 4, 4), 0.5)
    far, farther = image.clone(), image.clone()
    far[..., 0, 0], farther[..., 0, 0] = 0.95, 1.0
    exact, one, other = (background_nll(x, image) for x in (image, far, farther))
    assert one > exact
    torch.testing.assert_close(one, other, rtol=0, atol=0.01)
    # The density integrates to 1, 5 % of it uniformly over [0, 1]^3.
    assert torch.isclose(other - 15 / 16 * exact, torch.tensor(-math.log(0.05)), atol=0.01)


def test_occluders_are_shapes_of_one_hue() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.full((64, 3, 32, 32), 0.5)
    uniform = torch.rand(64, 1, OCCLUDER_SIZE, generator=generator)
    pasted = paste_occluders(images, uniform)
    assert pasted.min() >= 0 and pasted.max() <= 1
    changed = (pasted != images).any(1)
    assert 0.5 < changed.flatten(1).any(1).float().mean() < 0.9  # present with probability 0.7
    assert 1 / 16**2 / 2 < changed.flatten(1).float().mean(1).max() <= 0.25
    for image, inside in zip(pasted, changed, strict=True):
        colours = image[:, inside]
        if inside.any() and (colours < 1).all():
            hues = colours / colours.sum(0)
            torch.testing.assert_close(hues, hues[:, :1].expand_as(hues))


def test_an_occluded_background_is_scored_without_its_occluders() -> None:
    model: Any = build_model(GenesisConfig(**OBJECTS, background="predicted")).train()
    model.background_only, model.occluders = True, 3
    x = torch.rand(4, 3, SIDE, SIDE)
    seen: list[Tensor] = []
    model.background.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    first, second = (model.elbo(x, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first.nll, second.nll)
    assert (seen[0] != x).any()
    unoccluded = model.eval().elbo(x, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seen[-1], x)
    assert not torch.equal(unoccluded.nll, first.nll)


def test_backgrounds_start_from_the_images() -> None:
    frames = torch.rand(1, 3, 16, 16).repeat(9, 1, 1, 1)
    frames[torch.arange(8), :, torch.arange(8), 0] = 1.0  # an object that moves
    static = StaticBackground(16, 5)
    static.fit(frames)
    assert torch.equal(static.image, frames[8])
    assert torch.equal(static.decode(torch.zeros(2, 5))[1], frames[8])
    torch.manual_seed(0)
    network = BackgroundNetwork(16, (4, 4), 8, 5)
    network.fit(frames)
    mean = network.head.bias.view(3, 16, 16)
    torch.testing.assert_close(mean, frames.mean(0))
    # The weights of units in excess of the components are 0.
    assert (network.head.weight.abs().amax(0) > 0).sum() <= 8


def test_a_static_background_warns_of_a_moving_camera() -> None:
    torch.manual_seed(0)
    model = build_model(GenesisConfig(**OBJECTS, background="static"))
    with pytest.warns(UserWarning, match=r"model\.background"):
        model.fit_background(torch.rand(20, 3, 1, 1).expand(-1, -1, SIDE, SIDE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit_background(torch.cat([squares([RED, BLUE]), squares([BLUE]), squares([])]))


def test_local_masks_are_the_same_at_any_resolution() -> None:
    torch.manual_seed(0)
    decoder = LocalDecoder(7, 8)
    z = torch.randn(2, 3, 7) * 0.3
    fine = torch.cartesian_prod(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9))
    coarse = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5))
    masks, shade = decoder(z, fine)
    few, _ = decoder(z, coarse)
    torch.testing.assert_close(few.view(2, 3, 5, 5), masks.view(2, 3, 9, 9)[..., ::2, ::2])
    assert masks.abs().max() <= 8
    assert shade.min() > math.exp(-0.71) and shade.max() < math.exp(0.71)
    absent = z.clone()
    absent[..., 3] = -1
    assert decoder(absent, fine)[0].max() < -4


@pytest.mark.parametrize("background", ["predicted", "static"])
@pytest.mark.parametrize("decoder", ["shaded", "flat", "broadcast"])
def test_strides_estimate_the_likelihood_without_bias(background: Any, decoder: Any) -> None:
    torch.manual_seed(0)
    options = {**OBJECTS, "background": background, "component_decoder": decoder}
    model = build_model(GenesisConfig(**options)).double()
    x = torch.rand(2, 3, SIDE, SIDE).double()
    whole = model.elbo(x, sample=False).nll
    model.likelihood_stride = 2
    m, c = (torch.zeros(2, 5, d).double() for d in model.latent_sizes)
    total = torch.zeros_like(whole)
    for row in (0, 1):
        for col in (0, 1):
            offset = torch.tensor([[row, col], [col, row]])
            total += model._score(x, Noise(m, c, offset), None).nll / 4
    torch.testing.assert_close(total, whole)


def test_the_first_slot_is_the_background() -> None:
    torch.manual_seed(0)
    model = build_model(GenesisConfig(**OBJECTS, background="static")).eval()
    model.fit_background(squares([]).repeat(3, 1, 1, 1))
    image = squares([RED, RED, BLUE])
    with torch.no_grad():
        decoded = model.decode(model.infer(image))
        scene = model.decode(model.sample(2))
    torch.testing.assert_close(decoded.mu_x[:, 0], squares([]))
    torch.testing.assert_close(scene.mu_x[1:, 0], squares([]))
    terms = model.elbo(image)
    torch.testing.assert_close(terms.kl_m[:, 0] + terms.kl_c[:, 0], torch.zeros(1))


@pytest.mark.parametrize("name", ["genesis", "genesis_s"])
def test_the_bound_lies_below_the_likelihood(name: str) -> None:
    torch.manual_seed(0)
    options = OBJECTS | {"background": "predicted"}
    if name == "genesis_s":
        options = {
            k: v for k, v in options.items() if not k.startswith(("component_latent", "prior_mlp"))
        }
        config: Any = GenesisSConfig(**options)
    else:
        config = GenesisConfig(**options)
    model = build_model(config).double().eval()
    x = squares([RED, RED, BLUE]).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weights = torch.stack([model.log_weight(x, generator=generator) for _ in range(400)])
    elbo = weights.mean(0)
    likelihood = weights.logsumexp(0) - math.log(len(weights))
    assert (elbo <= likelihood).all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"background": "none"}, "background"),
        ({"background": "sky"}, "background"),
        ({"posterior": "mean"}, "posterior"),
        (
            {"posterior_passes": 2, "mask_decoder": "broadcast", "component_decoder": "flat"},
            "posterior_passes",
        ),
        ({"component_decoder": "flat_objects"}, "component_decoder"),
        ({"mask_decoder": "broadcast"}, "mask_decoder"),
        ({"mask_latent_size": 4}, "mask_latent_size"),
        ({"component_latent_size": 2}, "component_latent_size"),
        ({"object_size": 0.0}, "object_size"),
        ({"foreground_threshold": -1.0}, "foreground_threshold"),
        ({"seed_threshold": 1.0}, "seed_threshold"),
        ({"hue_distance": 0.0}, "hue_distance"),
        ({"least_area": 0.0}, "least_area"),
        ({"shadow_brightness": 0.0}, "shadow_brightness"),
        ({"shadow_brightness": 1.5}, "shadow_brightness"),
        ({"background_channels": ()}, "background_channels"),
    ],
)
def test_bad_options_are_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        GenesisConfig(**OBJECTS | {"background": "predicted"} | changes)
