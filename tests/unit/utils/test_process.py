"""What a process says of itself; its signals and memory are tested by the programs."""

import platform
from pathlib import Path

import pytest
import torch

import genesis_rl
from genesis_rl.utils import process
from genesis_rl.utils.process import hardware, has_bfloat16, pick_device, versions

CPUINFO = "processor\t: 0\nmodel name\t: A Fine CPU @ 2GHz\nmodel name\t: A Fine CPU @ 2GHz\n"


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (3, "3 threads")])
def test_a_cpu_is_named(
    threads: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(process, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert hardware(torch.device("cpu")) == f"A Fine CPU @ 2GHz ({words})"


@pytest.mark.parametrize(
    ("processor", "machine", "name"),
    [("Some CPU", "x86", "Some CPU"), ("", "arm64", "arm64"), ("", "", "CPU")],
)
def test_where_the_system_says_little(
    processor: str, machine: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CPUINFO", tmp_path / "missing")
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert hardware(torch.device("cpu")).startswith(f"{name} (")


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert hardware(torch.device("cuda", 1)) == "GPU 1 (1 process)"
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
    assert hardware(torch.device("cuda", 0)) == "GPU 0 (8 processes)"


def test_bfloat16_is_used_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if platform.machine() == "x86_64":
        assert has_bfloat16(cpu) is avx512
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bfloat16(cpu)
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)  # noqa: B023
        assert has_bfloat16(gpu) is has


def test_versions() -> None:
    found = versions()
    assert found["genesis_rl"] == genesis_rl.__version__ and found["torch"] == torch.__version__
    assert found["python"].startswith("3.")


@pytest.mark.parametrize("gpu", [False, True])
def test_devices_are_picked(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert pick_device("auto") == torch.device("cuda" if gpu else "cpu")
    for device in ("cpu", torch.device("cpu")):
        assert pick_device(device) == torch.device("cpu")
    if gpu:
        assert pick_device("cuda:1") == torch.device("cuda", 1)
    else:
        for missing in ("cuda", torch.device("cuda:3")):
            with pytest.raises(ValueError, match=r"^device "):
                pick_device(missing)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "", "cpu:-2"])
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(ValueError, match=r"^device "):
        pick_device(device)
