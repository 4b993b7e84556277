"""Tables of an evaluation's results."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A score: its key, its title, and whether "low" or "high" is better, or neither."""

    key: str
    name: str
    better: str = ""


#: Rows by table.
SECTIONS: dict[str, tuple[Row, ...]] = {
    "Images": (
        Row("mse", "MSE of the reconstruction", "low"),
        Row("nll", "nll, nats per image", "low"),
        Row("kl_m", "KL of mask latents, nats"),
        Row("kl_c", "KL of component latents, nats"),
        Row("elbo", "ELBO, nats per image", "high"),
        Row("elbo_bpd", "ELBO, bits per dimension (8 bit)", "low"),
        Row("iwae", "importance-weighted bound, nats", "high"),
        Row("iwae_bpd", "the same, bits per dimension (8 bit)", "low"),
        Row("active_slots", "slots with 1 % of the pixels"),
        Row("active_latents", "slots with a KL of 1 nat"),
    ),
    "Objects": (
        Row("ari", "ARI, all pixels", "high"),
        Row("ari_fg", "ARI, foreground", "high"),
        Row("ari_fg_2plus", "ARI, foreground, two objects or more", "high"),
        Row("sc", "SC", "high"),
        Row("msc", "mSC", "high"),
        Row("objects_lost", "share of objects lost to the background", "low"),
        Row("same_colour_shared", "share of pairs of one colour in one slot", "low"),
        Row("other_colour_shared", "share of pairs of two colours in one slot", "low"),
        Row("twins_shared", "share of touching pairs of one hue in one slot", "low"),
    ),
    "Objects, by responsibilities p(k | x, z)": (
        Row("posterior_ari", "ARI, all pixels, by responsibilities", "high"),
        Row("posterior_ari_fg", "ARI, foreground, by responsibilities", "high"),
        Row("posterior_ari_fg_2plus", "the same, two objects or more, by responsibilities", "high"),
        Row("posterior_sc", "SC, by responsibilities", "high"),
        Row("posterior_msc", "mSC, by responsibilities", "high"),
    ),
    "Samples": (
        Row("frechet", "Frechet distance", "low"),
        Row("valid", "share of valid scenes", "high"),
        Row("valid_number", "with as many objects as in training", "high"),
        Row("valid_colour", "with objects of one colour", "high"),
        Row("valid_shape", "with compact objects of one piece", "high"),
        Row("valid_inside", "with objects within the frame", "high"),
        Row("valid_reconstructed", "share of valid reconstructions", "high"),
        Row("objects", "objects per scene"),
        *(Row(f"scenes_with_{n}", f"share of scenes with {n} objects") for n in range(11)),
        Row("nearest_pixels", "distance to the nearest training image, pixels"),
        Row("spread_pixels", "distance to the nearest other scene, pixels"),
        Row("nearest_features", "distance to the nearest training image, features"),
        Row("spread_features", "distance to the nearest other scene, features"),
    ),
}


def tables(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Format the results of `evaluate`: one column per group of runs, then the baselines.

    Groups of several runs have mean and standard deviation. The fixed grid, with one cell per slot,
    has one column per number of slots.

    Args:
        result: result of `evaluate`.

    Returns:
        One table per section with scores, as `genesis_rl.utils.tables` formats them.
    """
    columns = [(group_title(group), group["mean"], group["std"]) for group in result["groups"]]
    reference = baseline_columns(result["runs"])
    result_tables = []
    for section, rows in SECTIONS.items():
        present = [row for row in rows if any(row.key in mean for _, mean, _ in columns)]
        if not present:
            continue
        baselines = [
            (name, scores)
            for name, scores in reference
            if any(row.key in scores for row in present)
        ]
        titles = [*(title for title, _, _ in columns), *(name for name, _ in baselines)]
        lines = []
        for row in present:
            cells = [format_score(mean.get(row.key), std.get(row.key)) for _, mean, std in columns]
            cells += [format_score(scores.get(row.key)) for _, scores in baselines]
            lines.append([row.name, row.better, *cells])
        head = ["", "better", *titles]
        result_tables.append({"caption": section, "head": head, "rows": lines})
    return result_tables


def group_title(group: Mapping[str, Any]) -> str:
    """Return the title of a group of `evaluate`, with its number of runs if above 1."""
    count = len(group["runs"])
    label: str = group["label"]
    return label if count == 1 else f"{label}, {count} runs"


def baseline_columns(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the baselines' titles and scores, once per number of slots if they depend on it."""
    slots = {record["num_slots"] for record in records}
    columns: dict[str, Mapping[str, Any]] = {}
    for record in records:
        for name, scores in record["baselines"].items():
            title = name.replace("_", " ")
            if name == "fixed_grid" and len(slots) > 1:
                title += f" of {record['num_slots']}"
            columns.setdefault(title, scores)
    return list(columns.items())


def format_score(value: float | None, deviation: float | None = None) -> str:
    """Format a score, or mean ± standard deviation, with about four digits; "-" for None."""
    if value is None:
        return "-"
    # Four digits without exponents: nats are in the thousands, errors in the thousandths.
    digits = max(0, min(5, 3 - len(str(int(abs(value)))) + 1)) if abs(value) >= 1 else 4
    text = f"{value:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"
