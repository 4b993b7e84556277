"""pretrain/distill.py on a tiny teacher: training, stop, resume, report, uses of the student."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import genesis_rl
from genesis_rl.checkpoints.loading import load_pretrained, save_pretrained
from genesis_rl.data import open_dataset
from genesis_rl.data.feed import ImageFeed
from genesis_rl.models import Genesis, GenesisConfig, Monet, MonetConfig
from genesis_rl.models.distilled import Distilled
from genesis_rl.models.refinement import refine
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training import State
from genesis_rl.training.distillation import DistillTrainer, infer_targets
from genesis_rl.utils.log import read

Run = Callable[..., tuple[int, str, str]]
PROGRAM = "pretrain/distill.py"
DATA: dict[str, Any] = {"image_size": 32, "num_images": 512, "num_objects": 2, "object_scale": 0.3}
SCENES = ("--data", "object_goal", "--data-options", json.dumps(DATA))
QUICK = (
    *("--steps", "400", "--batch-size", "32", "--log-every", "50", "--eval-every", "200"),
    *("--save-every", "200", "--eval-images", "64", "--device", "cpu", "--no-tensorboard"),
)


@pytest.fixture(autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path_factory.getbasetemp() / "distill"))


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A teacher whose slots depend smoothly on the frame."""
    torch.manual_seed(0)
    config = GenesisConfig(
        image_size=32,
        num_slots=3,
        mask_latent_size=4,
        component_latent_size=2,
        encoder_channels=(4, 4, 8, 8, 8),
        decoder_channels=(8, 4, 4, 4, 4),
        component_encoder_channels=(4, 4, 8),
        component_decoder_channels=4,
    )
    model = Genesis(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
        for head in (model.first_posterior, model.posterior_head, model.mask_decoder.head):
            head.weight.mul_(8)
        for _ in range(20):  # updates batch norm's running averages
            model.elbo(torch.rand(4, 3, 32, 32))
    save_pretrained(model.eval(), tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.slow
def test_a_student_sees_what_its_teacher_sees(
    encoder: Path, run_program: Run, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    status, shown, errors = run_program(PROGRAM, str(encoder), *SCENES, *QUICK, "--out", str(out))
    assert status == 0, errors
    assert "student" in shown and str(out) in shown
    report = json.loads((out / "report.json").read_text())
    scores = report["fidelity"]
    assert scores["r2"] > 0.5
    assert {"msc", "teacher_msc", "ari", "teacher_ari"} <= set(scores)
    assert [row["batch"] for row in report["speed"]] == [1, 8, 32]
    assert report["flops"]["student"] < 15e6
    validated = [row["validation/r2"] for row in read(out) if "validation/r2" in row]
    assert len(validated) == 2 and validated[1] > validated[0]

    # It is an encoder of its own, and everything but the inference is the teacher's.
    student, taught = SlotEncoder(out, device="cpu"), SlotEncoder(encoder, device="cpu")
    assert student.fingerprint == report["fingerprint"] != taught.fingerprint
    assert student.has_prior and student.latent_sizes == taught.latent_sizes
    features = torch.rand(2, 3, 6)
    assert torch.equal(student.decode(features).image, taught.decode(features).image)
    assert torch.equal(student.sample(features), taught.sample(features))
    # It can be shared as any other.
    shared = tmp_path / "shared"
    flags = ("--out", str(shared), "--device", "cpu", "--precision", "bf16")
    status, _, errors = run_program("pretrain/share.py", str(out), *flags)
    assert status == 0, errors
    card = (shared / "README.md").read_text()
    assert f"| r2 | {scores['r2']:.4f} |" in card and "rounded to bfloat16" in card
    for path in (shared / "README.md", shared / "config.json"):
        assert str(tmp_path) not in path.read_text(), path
    status, _, errors = run_program(
        *("pretrain/share.py", str(out), "--out", str(tmp_path / "last"), "--which", "last"),
        *("--device", "cpu"),
    )
    same = SlotEncoder(out / "last", device="cpu").fingerprint == report["fingerprint"]
    assert (status == 0) is same, errors
    assert same or ": which " in errors
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(
        SlotEncoder(shared, device="cpu").features(frames), student.features(frames), atol=0.1
    )
    env = gym.make("genesis_rl/ObjectGoal-v0", image_size=32)
    seen = genesis_rl.GenesisObs(env, str(out), mask_geometry=True, info_keys=("masks",))
    observation, info = seen.reset(seed=0)
    assert observation.shape == (3, 4 + 2 + 3)
    assert info["masks"].shape == (3, 32, 32)
    np.testing.assert_allclose(info["masks"].sum(0), 1, atol=1e-5)
    rebuilt = gym.make(seen.spec)  # type: ignore[arg-type]
    np.testing.assert_array_equal(rebuilt.reset(seed=0)[0], observation)


def test_a_finer_student_learns_refined_slots(
    encoder: Path, run_program: Run, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    flags = (*QUICK[2:], "--steps", "30", "--eval-every", "30", "--num-images", "64")
    finer = ("--halvings", "2", "--refine-steps", "4", "--out", str(out))
    status, _, errors = run_program(PROGRAM, str(encoder), *SCENES, *flags, *finer)
    assert status == 0, errors
    report = json.loads((out / "report.json").read_text())
    scores = report["fidelity"]
    assert {"msc", "teacher_msc", "encoder_msc"} <= set(scores)
    labels = [row[0] for row in report["tables"][1]["rows"]]
    assert labels == ["teacher", "teacher, refined by 4 steps", "student"]
    student = load_pretrained(out, device="cpu").model
    assert student.config.mask_stride == 4
    slots = student.infer(torch.rand(1, 3, 32, 32))
    squares = slots.log_pi[0, :, 0].unfold(1, 4, 4).unfold(2, 4, 4)
    assert squares.shape == (3, 8, 8, 4, 4)  # one value for each square of four pixels
    assert torch.equal(squares.amin((-1, -2)), squares.amax((-1, -2)))
    written = str(tmp_path / "scores.json")
    status, _, errors = run_program(
        *("pretrain/evaluate.py", str(out), *SCENES, "--num-images", "8", "--iw-samples", "1"),
        *("--frechet", "none", "--refine-steps", "2", "--out", written, "--device", "cpu"),
    )
    assert status == 0, errors
    (scored,) = json.loads(Path(written).read_text())["runs"]
    assert scored["model"] == "distilled" and scored["refine_steps"] == 2
    status, _, errors = run_program(
        *(PROGRAM, str(encoder), *SCENES, *flags, "--halvings", "3", "--refine-steps", "4"),
        *("--out", str(out), "--resume"),
    )
    assert status == 2 and ": --halvings " in errors


def test_targets_are_the_refined_slots(encoder: Path, tmp_path: Path) -> None:
    model = load_pretrained(encoder, device="cpu").model
    pack = open_dataset("object_goal", "train", **DATA)
    x = torch.from_numpy(pack.images[:5].copy()).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        slots = refine(model, x, model.infer(x), 3)
    targets = infer_targets(
        model, ImageFeed(pack, torch.device("cpu")), 5, stride=4, refine_steps=3
    )
    torch.testing.assert_close(targets.latents, slots.features)
    expected = slots.log_pi[:, :, 0].exp().unflatten(2, (8, 4)).unflatten(4, (8, 4)).mean((3, 5))
    torch.testing.assert_close(targets.masks.float(), expected, atol=1e-3, rtol=0)
    plain = infer_targets(model, ImageFeed(pack, torch.device("cpu")), 5, stride=4)
    assert (plain.latents - targets.latents).abs().max() > 0.01


def test_a_stopped_training_ends_where_another_would(
    encoder: Path, run_program: Run, tmp_path: Path
) -> None:
    short = [*QUICK[2:], "--steps", "12", "--save-every", "5", "--eval-every", "12"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_program(PROGRAM, str(encoder), *SCENES, *short, "--out", str(whole))[0] == 0
    step = DistillTrainer._train_step

    def stop_at(self: DistillTrainer, state: State) -> torch.Tensor:
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTrainer, "_train_step", stop_at)
        status, _, errors = run_program(PROGRAM, str(encoder), *SCENES, *short, "--out", str(parts))
    assert status == 143 and "--resume continues" in errors
    status, _, errors = run_program(
        PROGRAM, str(encoder), *SCENES, *short, "--out", str(parts), "--resume"
    )
    assert status == 0, errors
    ours, theirs = (
        load_pretrained(folder / "last", device="cpu").model for folder in (parts, whole)
    )
    assert isinstance(ours, Distilled) and isinstance(theirs, Distilled)
    for name, value in ours.student.state_dict().items():
        assert torch.equal(value, theirs.student.state_dict()[name]), name


def test_misuse(encoder: Path, run_program: Run, tmp_path: Path) -> None:
    wrong = ("--data", "object_goal", "--data-options", json.dumps({**DATA, "image_size": 64}))
    for arguments, message in (
        ((str(tmp_path / "none"), *SCENES), ": encoder "),
        ((str(encoder),), "must be a run"),
        ((str(encoder), *wrong), "images of 32 px, as the teacher, got 64 px"),
        (
            (str(encoder), *SCENES, "--channels", "4", "4"),
            ": --halvings ",
        ),
        ((str(encoder), *SCENES, "--mask-weight", "0"), "--mask-weight "),
        (
            (str(encoder), *SCENES, "--batch-size", "1024"),
            "--batch-size ",
        ),
    ):
        status, _, errors = run_program(
            PROGRAM, *arguments, "--out", str(tmp_path / "out"), "--device", "cpu"
        )
        assert status == 2 and message in errors, errors


def test_students_of_other_models_draw_by_their_latents(tmp_path: Path) -> None:
    """MONet's masks depend on the image; a student decodes without it."""
    from genesis_rl.models.distilled import DistilledConfig

    config = MonetConfig(image_size=32, num_slots=3, attention_channels=4)
    plain = {"image_size": 32, "num_slots": 3, "attention_channels": 4}
    model = Distilled(DistilledConfig("monet", plain)).eval()
    assert isinstance(model.teacher, Monet) and model.teacher.config == config
    save_pretrained(model, tmp_path)
    loaded = load_pretrained(tmp_path, device="cpu").model
    x = torch.rand(2, 3, 32, 32)
    slots = loaded.infer(x)
    torch.testing.assert_close(slots.z_c, model.infer(x).z_c)
    # The masks are the student's, means over squares of 8 pixels.
    assert slots.log_pi.shape == (2, 3, 1, 32, 32)
    assert torch.equal(slots.log_pi[..., :8, :8], slots.log_pi[..., :1, :1].expand(2, 3, 1, 8, 8))
    drawn = loaded.decode(slots)
    again = model.teacher.decode(model.redraw_masks(slots))
    torch.testing.assert_close(drawn.image, again.image)
    assert not SlotEncoder(loaded, device="cpu").has_prior


def test_a_teacher_must_be_known() -> None:
    from genesis_rl.models.distilled import DistilledConfig

    with pytest.raises(ValueError, match=r"^teacher "):
        DistilledConfig("slate", {"image_size": 32})
    with pytest.raises(ValueError, match=r"^teacher_config "):
        DistilledConfig("genesis", {"image_size": 32, "colour": 3})
    assert DistilledConfig("genesis", {}).num_slots == 5
