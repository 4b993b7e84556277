"""Folders of others: none of what they name is run, and nothing outside of them is read."""

import importlib.util
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genesis_rl.agents.algorithms import build_model
from genesis_rl.agents.bundle import load_agent, save_agent
from genesis_rl.agents.config import AgentConfig, PolicyConfig
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints.loading import load, load_pretrained
from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.data.readers.hdf5 import ObjectCentricHdf5
from genesis_rl.envs.compose import REWARDS
from genesis_rl.envs.imagination import ImaginationOptions
from genesis_rl.envs.make import check_imports
from genesis_rl.evaluation.probes.heads import Head
from genesis_rl.evaluation.probes.saved import SceneProbe, SceneProbeConfig
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.model import SlotSpec, WorldModelConfig

HUGE = 10**9
DEEP = "[" * 100_000 + "]" * 100_000
SECRET = 201  # every pixel of what lies outside of the folders
#: Imported or called, it leaves a trace.
CANARY = """
import pathlib
TRACE = pathlib.Path({trace!r})
TRACE.write_text("imported")
import gymnasium
gymnasium.register("Evil-v0", lambda **kwargs: TRACE.write_text("made"))
class Payload(gymnasium.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        TRACE.write_text("called")
def pay(scene):
    return 1.0
"""


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


class Place:
    """The folders of one test: honest ones to spoil, the current one, and secrets outside."""

    def __init__(self, root: Path, honest: Path, encoder: SlotEncoder) -> None:
        self.trace, self.out = root / "TRACE", root / "out"
        self.encoder = encoder
        shutil.copytree(honest, root / "folders")
        folders = root / "folders"
        self.agent, self.slots_agent = folders / "agent", folders / "slots_agent"
        self.model, self.world = folders / "model", folders / "world"
        self.pack, self.probe = folders / "pack", folders / "probe"
        self.secret = root / "secret"
        self.secret.mkdir()
        image = np.full((32, 32, 3), SECRET, np.uint8)
        cv2.imwrite(str(self.secret / "image.png"), image)
        (self.secret / "raw.bin").write_bytes(bytes([SECRET]) * (2 * 16 * 16 * 3))
        with h5py.File(self.secret / "data.hdf5", "w") as file:
            file["image"] = np.full((2, 16, 16, 3), SECRET, np.uint8)


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory, encoder_path: str) -> Path:
    """One folder of each kind."""
    root = tmp_path_factory.mktemp("honest")
    shutil.copytree(encoder_path, root / "model")
    pretrained = load_pretrained(encoder_path, device="cpu")
    encoder = SlotEncoder(encoder_path, device="cpu")
    small = PolicyConfig("mlp", width=8, layers=1)
    common: dict[str, Any] = {"vec": "dummy", "n_envs": 1, "policy": small}
    state = AgentConfig(obs="state", env_options='{"num_objects": 3}', **common)
    slots = AgentConfig(
        encoder=encoder_path, encoder_device="cpu", env="Pixel-v0", mask_geometry=False, **common
    )
    for name, config in (("agent", state), ("slots_agent", slots)):
        with closing(make_vec_env(config, (config.encoder and encoder) or None)) as venv:
            model = build_model(config, venv, "cpu")
            save_agent(root / name, model, config, pretrained if config.encoder else None)
    WorldModel(
        WorldModelConfig("mlp", width=8, layers=1, attention_heads=1, ensemble=2),
        ActionSpec("discrete", n=4),
        SlotSpec(encoder.fingerprint, encoder.num_slots, encoder.latent_sizes),
    ).save_pretrained(root / "world")
    with PackWriter(root / "pack", 2, 16, masks=False) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8), count=np.arange(2))
    described = SceneProbeConfig("stands", (0, 1), 3, 9, 8, encoder.fingerprint, 1.0)
    SceneProbe(described, Head(27, 8, 2)).save(root / "probe")
    return root


@pytest.fixture
def place(
    tmp_path: Path, honest: Path, encoder: SlotEncoder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """The current folder is first on the path, and holds the canary."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "canary.py").write_text(CANARY.format(trace=str(tmp_path / "TRACE")))
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    monkeypatch.setattr("genesis_rl.checkpoints.weights.download", refuse_download)
    yield Place(tmp_path, honest, encoder)
    gym.registry.pop("Evil-v0", None)


def refuse_download(*_: Any, **__: Any) -> Path:
    raise AssertionError("asked the Hub")


def edit(path: Path, *where: str, **changes: Any) -> None:
    """Change entries of a JSON file, or of an object within."""
    data = json.loads(path.read_text())
    part = data
    for name in where:
        part = part[name]
    part |= changes
    path.write_text(json.dumps(data))


def pickled(path: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(trace)))


def set_weights(path: Path, name: str, value: float) -> None:
    state = load_file(path)
    state[name].view(-1)[0] = value
    save_file(state, path)


# ---- agents -------------------------------------------------------------------------------------


def agent(**changes: Any) -> Callable[[Place], Any]:
    """Load the agent whose settings were changed; options may name the place's folders."""

    def attack(place: Place) -> Any:
        options = changes.get("env_options")
        if isinstance(options, dict):
            text = json.dumps(options).replace("SECRET", str(place.secret))
            changes["env_options"] = text.replace("TRACE", str(place.trace))
        edit(place.agent / "agent.json", "config", **changes)
        return load_agent(place.agent)

    return attack


COMPOSE, IMAGINE = "genesis_rl/Compose-v0", "genesis_rl/Imagination-v0"
TOUCH = {"args": ["touch", "TRACE"]}
POPEN = {"encoder": "sprites-fast", "reward": "subprocess:Popen", "reward_options": TOUCH}


def unpickled_policy(place: Place) -> Any:
    pickled(place.agent / "policy.safetensors", place.trace)
    return load_agent(place.agent)


def encoder_of_the_hub(place: Place) -> Any:
    shutil.move(place.slots_agent, "agent")
    shutil.rmtree("agent/encoder")
    return load_agent("agent")  # agent/encoder has the form of a Hub id


def deep_settings(place: Place) -> Any:
    (place.agent / "agent.json").write_text(DEEP)
    return load_agent(place.agent)


def edited_spaces(place: Place) -> Any:
    edit(place.agent / "agent.json", "spaces", actions="Discrete(7)")
    return load_agent(place.agent)


def spaces_of_another_type(place: Place) -> Any:
    edit(place.agent / "agent.json", spaces=[1])
    return load_agent(place.agent)


def edited_geometry(place: Place) -> Any:
    edit(place.slots_agent / "agent.json", "config", mask_geometry=True)
    return load_agent(place.slots_agent)


def edited_geometry_and_spaces(place: Place) -> Any:
    space = "Box(-inf, inf, (3, 12), float32)"
    edit(place.slots_agent / "agent.json", "spaces", observations=space)
    return edited_geometry(place)


AGENTS: dict[str, tuple[Callable[[Place], Any], str]] = {
    "env imports": (agent(env="canary:Evil-v0"), "trust_remote_code.*env 'canary:Evil-v0'"),
    "known env imports": (agent(env="canary:CartPole-v1"), r"^env 'CartPole-v1' "),
    "wrapper": (agent(wrappers=["canary:Payload"]), "trust_remote_code.*'canary:Payload'"),
    "wrapper runs": (agent(wrappers=["subprocess:Popen"]), "trust_remote_code.*subprocess:Popen"),
    "wrapper of a known module": (
        agent(wrappers=["gymnasium.wrappers:gym"]),
        "trust_remote_code.*gymnasium.wrappers:gym",
    ),
    "reward runs": (
        agent(env=COMPOSE, env_options=POPEN),
        "trust_remote_code.*reward 'subprocess:Popen'",
    ),
    "reward imports": (
        agent(env=COMPOSE, env_options={"encoder": "sprites-fast", "reward": "canary:pay"}),
        "trust_remote_code.*canary:pay",
    ),
    "reward reads": (
        agent(
            env=COMPOSE,
            env_options={"reward": "goal", "reward_options": {"goal": "SECRET/image.png"}},
        ),
        "trust_remote_code.*image.png",
    ),
    "model outside": (
        agent(env=COMPOSE, env_options={"encoder": "SECRET", "reward": "objects"}),
        "trust_remote_code.*encoder",
    ),
    "model of the Hub": (
        agent(env=COMPOSE, env_options={"encoder": "some/one", "reward": "objects"}),
        "trust_remote_code.*some/one",
    ),
    "data outside": (
        agent(env=IMAGINE, env_options={"encoder": "sprites-fast", "data": "../secret"}),
        "trust_remote_code.*data",
    ),
    "textures outside": (
        agent(env="genesis_rl/ShapeStacks-v0", env_options={"textures": "SECRET"}),
        "trust_remote_code.*textures",
    ),
    "environment of another API": (
        agent(env="GymV26Environment-v0", env_options={"env_id": "canary:Evil-v0"}),
        "trust_remote_code.*canary:Evil-v0",
    ),
    "class in nested options": (
        agent(env_options={"config": {"other": [["canary.Payload"]]}}),
        "trust_remote_code.*config.other 'canary.Payload'",
    ),
    "module as a plain word": (agent(env_options={"backend": "canary"}), "backend 'canary'"),
    "deep options": (agent(env_options='{"a": ' + DEEP + "}"), "env_options"),
    "deep settings": (deep_settings, r"agent.json .*JSON"),
    "wide policy": (agent(policy={"extractor": "mlp", "width": HUGE}), r"^width "),
    "long policy": (agent(policy={"extractor": "mlp", "layers": HUGE}), r"^layers "),
    "large policy": (agent(policy={"extractor": "mlp", "layers": 64, "width": 4096}), r"^policy "),
    "large frames": (agent(obs="pixels", frame_size=HUGE), r"^frame_size "),
    "many environments": (agent(n_envs=HUGE), r"^n_envs "),
    "pickled policy": (unpickled_policy, r"safetensors .*damaged"),
    "encoder of the Hub": (encoder_of_the_hub, r"encoder .*missing"),
    "edited spaces": (edited_spaces, r"^env .*actions"),
    "spaces of another type": (spaces_of_another_type, "spaces"),
    "edited env": (agent(env="genesis_rl/PropertyComparison-v0"), r"^env .*ObjectGoal"),
    "edited options": (agent(env_options='{"num_objects": 3, "agent_scale": 0.3}'), "env_options"),
    "edited geometry": (edited_geometry, r"^env .*observations"),
    "edited geometry and spaces": (edited_geometry_and_spaces, "policy.safetensors"),
}


# ---- models, world models, probes ---------------------------------------------------------------


def model(text: str | None = None, **changes: Any) -> Callable[[Place], Any]:
    def attack(place: Place) -> Any:
        path = place.model / "config.json"
        edit(path, **changes) if text is None else path.write_text(text)
        return load(place.model, device="cpu")

    return attack


def model_config(**changes: Any) -> Callable[[Place], Any]:
    def attack(place: Place) -> Any:
        edit(place.model / "config.json", "config", **changes)
        return load(place.model, device="cpu")

    return attack


def weights(value: float) -> Callable[[Place], Any]:
    def attack(place: Place) -> Any:
        name = "encoder.convs.0.norm.bias"
        set_weights(place.model / "model.safetensors", name, value)
        return load(place.model, device="cpu")

    return attack


def pickled_model(place: Place) -> Any:
    pickled(place.model / "model.safetensors", place.trace)
    return load(place.model, device="cpu")


def pickled_training(place: Place) -> Any:
    from genesis_rl.training.folder import TrainingFolder

    shutil.copytree(place.model, place.out / "last")
    pickled(place.out / "last" / "training.pt", place.trace)
    (place.out / "train.json").write_text("{}")
    folder = TrainingFolder.__new__(TrainingFolder)
    folder.last = place.out / "last"
    return folder.load_last(load(place.model, device="cpu"), torch.device("cpu"))


def world(part: str, **changes: Any) -> Callable[[Place], Any]:
    def attack(place: Place) -> Any:
        edit(place.world / "config.json", part, **changes)
        return WorldModel.from_pretrained(place.world, device="cpu")

    return attack


def swapped_latents(place: Place) -> Any:
    sizes = list(reversed(place.encoder.latent_sizes))
    edit(place.world / "config.json", "slot_spec", latent_sizes=sizes)
    return gym.make(
        IMAGINE, encoder=place.encoder, world_model=place.world, disable_env_checker=True
    )


def infinite_reward(place: Place) -> Any:
    set_weights(place.world / "model.safetensors", "reward_scale", float("inf"))
    return WorldModel.from_pretrained(place.world, device="cpu")


def probe(**changes: Any) -> Callable[[Place], Any]:
    def attack(place: Place) -> Any:
        edit(place.probe / "config.json", **changes)
        return SceneProbe.load(place.probe, device="cpu")

    return attack


MODELS: dict[str, tuple[Callable[[Place], Any], str]] = {
    "class of a module": (model(model="canary:Payload"), "canary:Payload"),
    "deep config": (model(DEEP), r"config.json .*JSON"),
    "large config": (model('"' + "a" * 2**25 + '"'), r"config.json .*JSON"),
    "pickled weights": (pickled_model, r"safetensors .*damaged"),
    "pickled training state": (pickled_training, "training.pt "),
    "many slots": (model_config(num_slots=HUGE), r"config.json .*num_slots "),
    "many passes": (model_config(posterior_passes=HUGE), r"config.json .*posterior_passes "),
    "wide layers": (model_config(prior_lstm_size=HUGE), r"config.json .*prior_lstm_size "),
    "many layers": (
        model_config(component_encoder_channels=[1] * 100_000),
        r"config.json .*component_encoder_channels ",
    ),
    "wider than its weights": (model_config(feature_size=16_000), r"model.safetensors: .*shape"),
    "wide latents": (model_config(component_latent_size=HUGE), "component_latent_size"),
    "no variance": (model_config(sigma_x=1e-300), r"config.json .*sigma_x "),
    "infinite variance": (model_config(sigma_x=float("inf")), r"config.json .*sigma_x "),
    "no numbers": (weights(float("nan")), r"model.safetensors: .*finite"),
    "infinite weights": (weights(float("inf")), r"model.safetensors: .*finite"),
    "long world model": (world("config", layers=HUGE), r"config.json .*layers "),
    "world model wider than its weights": (
        world("config", width=4096),
        r"model.safetensors: .*shape",
    ),
    "world of many slots": (world("slot_spec", num_slots=HUGE), r"config.json .*num_slots "),
    "geometry of many features": (world("slot_spec", mask_geometry=HUGE), "mask_geometry"),
    "actions beyond the weights": (world("action_spec", n=HUGE), r"action space .* n "),
    "more actions than weights": (world("action_spec", n=5), r"model.safetensors: .*shape"),
    "infinite reward": (infinite_reward, r"reward_scale .*finite"),
    "swapped latents": (swapped_latents, "latent_sizes"),
    "wide probe": (probe(hidden=HUGE), r"^hidden "),
    "probe of many slots": (probe(num_slots=HUGE), r"^num_slots "),
    "probe of many classes": (probe(classes=list(range(100_000))), r"model.safetensors: .*shape"),
}


# ---- packs and recordings -----------------------------------------------------------------------


def open_pack(place: Place) -> Any:
    pack = Pack.open(place.pack)
    return pack.factors


def pickled_images(place: Place) -> Any:
    np.save(place.pack / "images.npy", np.array([Bomb(place.trace)]), allow_pickle=True)
    return open_pack(place)


def pickled_factors(place: Place) -> Any:
    np.savez(place.pack / "factors.npz", count=np.array([Bomb(place.trace)] * 2, object))
    return open_pack(place)


def factors_that_swell(place: Place) -> Any:
    np.savez_compressed(place.pack / "factors.npz", count=np.zeros((2, 2**23), np.uint8))
    return open_pack(place)


def meta(**changes: Any) -> Callable[[Place], Any]:
    def attack(place: Place) -> Any:
        edit(place.pack / "meta.json", **changes)
        return open_pack(place)

    return attack


def deep_meta(place: Place) -> Any:
    (place.pack / "meta.json").write_text(DEEP)
    return open_pack(place)


def hdf5(write: Callable[[Any, Place], Any]) -> Callable[[Place], Any]:
    """Read an HDF5 file of the object-centric library whose images lie elsewhere."""

    def attack(place: Place) -> Any:
        with h5py.File(place.pack / "clevr_10-full.hdf5", "w") as file:
            file["mask"] = np.zeros((2, 16, 16, 1), np.int32)
            write(file, place)
        return list(ObjectCentricHdf5(place.pack, "train").records())

    return attack


def external_link(file: Any, place: Place) -> None:
    file["image"] = h5py.ExternalLink(str(place.secret / "data.hdf5"), "/image")


def linked_group(file: Any, place: Place) -> None:
    file["group/more"] = h5py.ExternalLink(str(place.secret / "data.hdf5"), "/")
    file["image"] = h5py.SoftLink("/group/more/image")


def external_storage(file: Any, place: Place) -> None:
    raw = [(str(place.secret / "raw.bin"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("image", (2, 16, 16, 3), np.uint8, external=raw)


def virtual(file: Any, place: Place) -> None:
    layout = h5py.VirtualLayout((2, 16, 16, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(place.secret / "data.hdf5"), "image", (2, 16, 16, 3))
    file.create_virtual_dataset("image", layout)


def minari_env(place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:
    from genesis_rl.envs.recording.collect import CollectConfig
    from genesis_rl.envs.recording.minari_data import collect_minari

    folder = place.pack / "evil" / "data-v0" / "data"
    folder.mkdir(parents=True)
    spec = {"id": "Evil-v0", "entry_point": "subprocess:Popen", "kwargs": {"args": ["touch"]}}
    spec["kwargs"]["args"].append(str(place.trace))  # type: ignore[index]
    text = {"env_spec": json.dumps(spec), "data_format": "hdf5", "total_steps": 1}
    (folder / "metadata.json").write_text(json.dumps(text))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place.pack))
    return collect_minari(CollectConfig(from_minari="evil/data-v0", out=place.out))


DATA: dict[str, tuple[Callable[[Place], Any], str]] = {
    "pickled images": (pickled_images, "images.npy"),
    "pickled factors": (pickled_factors, "factors.npz"),
    "factors that swell": (factors_that_swell, r"factors.npz .*bytes"),
    "large images": (meta(image_size=[HUGE, HUGE]), r"meta.json .*image_size "),
    "infinitely many images": (meta(num_images=float("inf")), "num_images"),
    "many images": (meta(num_images=HUGE), "images.npy"),
    "deep meta": (deep_meta, r"meta.json .*nested"),
    "external link": (hdf5(external_link), r"clevr_10-full.hdf5 .*external"),
    "link in a group": (hdf5(linked_group), "external"),
    "external storage": (hdf5(external_storage), r"clevr_10-full.hdf5 .*raw.bin"),
    "virtual data set": (hdf5(virtual), "virtual"),
}

ATTACKS = {
    f"{kind}: {name}": attack
    for kind, attacks in (("agent", AGENTS), ("model", MODELS), ("data", DATA))
    for name, attack in attacks.items()
}


def check_untouched(place: Place) -> None:
    assert not place.trace.exists()
    assert "canary" not in sys.modules
    assert not (place.out / "train").exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_run_or_read_elsewhere(name: str, place: Place) -> None:
    attack, message = ATTACKS[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        attack(place)
    check_untouched(place)


def test_a_minari_data_set_makes_no_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari")
    with pytest.raises(ValueError, match=r"trust_remote_code.*env_spec.*subprocess:Popen"):
        minari_env(place, monkeypatch)
    check_untouched(place)


def test_the_programs_ask_for_consent(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(place.agent / "agent.json", "config", wrappers=["canary:Payload"])
    root = Path(__file__).parents[2]
    for program, argv in (
        ("agents/evaluate.py", [str(place.agent), "--episodes", "1"]),
        ("envs/collect.py", ["--agent", str(place.agent), "--out", str(place.out)]),
    ):
        spec = importlib.util.spec_from_file_location("program", root / program)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.main(argv) == 2
        said = capsys.readouterr().err
        assert "--trust-remote-code" in said and "'canary:Payload'" in said
    check_untouched(place)
    assert not (place.agent / "evaluation.json").exists()


def test_with_consent_the_named_code_runs(place: Place) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        agent(wrappers=["canary:Payload"])(place)
    with pytest.raises(ValueError, match=r"^wrappers "):  # edited after it was saved
        load_agent(place.agent, trust_remote_code=True)
    assert place.trace.read_text() == "called"


def test_the_callers_own_options_need_no_consent(place: Place) -> None:
    edit(place.agent / "agent.json", "config", env_options='{"textures": "/etc"}')
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_agent(place.agent)
    with pytest.raises(ValueError, match="'textures'"):  # it was passed on
        load_agent(place.agent, env_options={"textures": "/etc"})


def test_what_arguments_ask_for_is_bounded(place: Place) -> None:
    scene_model = load(place.model, device="cpu")
    with pytest.raises(ValueError, match=r"^n "):
        scene_model.sample(HUGE)
    with pytest.raises(ValueError, match=r"^refine_steps "):
        SlotEncoder(place.model, device="cpu", refine_steps=HUGE)
    with pytest.raises(ValueError, match=r"^candidates "):
        gym.make(COMPOSE, encoder=place.encoder, reward="objects", candidates=HUGE)
    with pytest.raises(ValueError, match=r"^num_envs "):
        gym.make_vec(IMAGINE, HUGE, encoder=place.encoder, world_model=str(place.world))
    for options in ({"uncertainty_penalty": float("inf")}, {"prior_scenes": HUGE}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}"):
            ImaginationOptions(**options)


def test_registered_names_need_no_consent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    source = place.agent / "agent.json"
    options = {"reward": "mine", "colours": ["red", [1, 2, 3]], "held_out": [["red", "star_4"]]}
    monkeypatch.setitem(REWARDS, "mine", lambda scene: 1.0)
    assert check_imports("CartPole-v1", options, (), source=source) == "CartPole-v1"
    # A registered id of a module that is not imported is made without it.
    assert check_imports("canary:CartPole-v1", {}, (), source=source) == "CartPole-v1"
    wrapper = "gymnasium.wrappers:FlattenObservation"
    assert check_imports("gymnasium:CartPole-v1", {}, (wrapper,), source=source)
    check_untouched(place)


def test_a_package_of_the_current_folder_is_not_taken_for_a_known_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("canary.py", "miniworld.py")
    monkeypatch.delitem(sys.modules, "miniworld", raising=False)
    with pytest.raises(ValueError, match="env 'miniworld:Evil-v0'"):
        check_imports("miniworld:Evil-v0", {}, (), source=place.agent)
    assert not place.trace.exists()


def test_agents_without_a_copy_of_their_settings_load(place: Place) -> None:
    path = place.agent / "policy.safetensors"
    save_file(load_file(path), path)
    edit(place.agent / "agent.json", "config", mask_geometry=False)
    loaded = load_agent(place.agent)
    loaded.venv.close()


def test_links_of_the_hubs_cache_are_followed(place: Place) -> None:
    blob = place.secret / "blob"
    shutil.move(place.model / "model.safetensors", blob)
    os.symlink(blob, place.model / "model.safetensors")
    load(place.model, device="cpu")
