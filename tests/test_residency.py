import numpy as np
import pytest
import torch
from stores import N_SAMPLES, write_tiny_store

from einthoven import residency
from einthoven.batches import StreamedWindows
from einthoven.console import log
from einthoven.errors import ConfigError
from einthoven.residency import choose_residency, free_host_memory, residency_line
from einthoven.run_folder import WITHOUT_EFFECT
from einthoven.runs import open_run
from einthoven.settings import Settings

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GIB = 2**30
# Windows of 1000 samples: a little less than this many take one GiB.
WINDOWS_PER_GIB = GIB // (12 * 1000 * 2)


@pytest.fixture
def free(monkeypatch):
    """Ten GiB on the host, five on the GPU."""
    monkeypatch.setattr(residency, "free_host_memory", lambda: (10 * GIB, "on this machine"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GIB, 80 * GIB))


# The choice -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "n_gib", "kept"),
    [
        (CUDA, 2.9, "device"), (CUDA, 3.1, "memory"), (CUDA, 6.1, "streamed"),
        (CPU, 2.9, "memory"), (CPU, 5.9, "memory"), (CPU, 6.1, "streamed"),
    ],
)  # fmt: skip
def test_windows_are_kept_as_near_to_the_model_as_they_fit(free, device, n_gib, kept):
    assert choose_residency(int(n_gib * WINDOWS_PER_GIB), 1000, device) == kept


@pytest.mark.parametrize(
    ("device", "n_gib", "wish", "kept"),
    [
        (CUDA, 4, "device", "device"), (CUDA, 1, "memory", "memory"),
        (CUDA, 1, "streamed", "streamed"), (CPU, 8, "device", "memory"),
        (CPU, 8, "memory", "memory"),
    ],
)  # fmt: skip
def test_a_wish_goes_before_what_would_be_chosen(free, device, n_gib, wish, kept):
    assert choose_residency(n_gib * WINDOWS_PER_GIB, 1000, device, wish) == kept


@pytest.mark.parametrize(
    ("device", "n_gib", "wish", "message"),
    [
        (CUDA, 6, "device", r"is device.* 5\.00 GiB free on cuda:0; use auto, memory or str"),
        (CUDA, 11, "memory", r"is memory.* 10\.00 GiB free on this machine; use auto or str"),
        (CPU, 11, "device", r"is device.* 10\.00 GiB free on this machine; use auto or str"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_met_is_refused_with_sizes(free, device, n_gib, wish, message):
    with pytest.raises(ConfigError, match=message):
        choose_residency(n_gib * WINDOWS_PER_GIB, 1000, device, wish)


def test_the_line_says_sizes_free_memory_and_place(free):
    size = (2 * WINDOWS_PER_GIB, 1000)
    assert residency_line(*size, CUDA, "device") == (
        "2.00 GiB of windows, 5.00 GiB free on cuda:0: kept on cuda:0"
    )
    assert residency_line(*size, CUDA, "memory") == (
        "2.00 GiB of windows, 10.00 GiB free on this machine: kept in memory"
    )
    assert residency_line(*size, CPU, "streamed") == (
        "2.00 GiB of windows, 10.00 GiB free on this machine: "
        "read from the store as they are needed"
    )


def test_sizes_below_a_gibibyte_are_told_in_mebibytes(free):
    line = residency_line(WINDOWS_PER_GIB // 64, 1000, CPU, "memory")
    assert line.startswith("16.0 MiB of windows, 10.00 GiB free")


# A run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_tiny_store(tmp_path_factory.mktemp("w"), n_records=30)


def run_of(store, **settings):
    chosen = {"train": np.arange(20), "val": np.arange(20, 30)}
    values = Settings(root=store.records_dir, target_samples=N_SAMPLES, **settings)
    return open_run(values, store, chosen, "data", CPU)


def test_splits_that_fit_alone_but_not_together_are_streamed(store, monkeypatch):
    n_bytes = store.window_bytes * 30
    # Each alone takes less than three fifths of what is free.
    monkeypatch.setattr(
        residency, "free_host_memory", lambda: (int(n_bytes / 0.61), "on this machine")
    )
    said = []
    monkeypatch.setattr(log, "info", lambda form, *values: said.append(form % values))
    run = run_of(store)
    assert isinstance(run.train.source, StreamedWindows)
    assert isinstance(run.selection.source, StreamedWindows)
    lines = [line for line in said if "of windows" in line]
    assert len(lines) == 1 and lines[0].endswith("read from the store as they are needed")


def test_a_run_keeps_its_windows_where_they_are_wished(store):
    run = run_of(store, residency="streamed")
    assert isinstance(run.train.source, StreamedWindows)
    assert not isinstance(run_of(store, residency="device").train.source, StreamedWindows)
    assert "residency" in WITHOUT_EFFECT


# Free memory ------------------------------------------------------------------------------------


def write_group(folder, **numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in numbers.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def write_membership(root, *lines):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(lines) + "\n")


def test_a_machine_without_control_groups_has_what_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(residency.psutil, "virtual_memory", lambda: Available(7 * GIB))
    assert free_host_memory(tmp_path) == (7 * GIB, "on this machine")


class Available:
    def __init__(self, available):
        self.available = available


def test_version_2_limits_of_groups_above_count_and_files_in_memory_are_free(tmp_path):
    top = tmp_path / "sys/fs/cgroup"
    write_membership(tmp_path, "0::/job/step")
    write_group(top / "job/step", max="max", current=100)
    write_group(
        top / "job", max=1000, current=700, stat="anon 1\nactive_file 50\ninactive_file 100"
    )
    assert free_host_memory(tmp_path) == (450, "within this container's memory limit")


def test_version_1_limits_are_found_where_the_container_sees_its_own_group_as_the_top(tmp_path):
    top = tmp_path / "sys/fs/cgroup/memory"
    write_membership(tmp_path, "5:cpu,cpuacct:/docker/1f", "4:memory:/docker/1f", "0::/docker/1f")
    write_group(
        top, limit_in_bytes=1000, usage_in_bytes=900,
        stat="inactive_file 7\ntotal_active_file 0\ntotal_inactive_file 200",
    )  # fmt: skip
    assert free_host_memory(tmp_path) == (300, "within this container's memory limit")


def test_a_version_1_group_without_a_limit_leaves_the_machine_to_count(tmp_path):
    write_membership(tmp_path, "4:memory:/")
    write_group(
        tmp_path / "sys/fs/cgroup/memory", limit_in_bytes=9223372036854771712, usage_in_bytes=1
    )
    assert free_host_memory(tmp_path)[1] == "on this machine"


def test_a_group_that_is_over_its_limit_has_nothing_free(tmp_path):
    write_membership(tmp_path, "0::/")
    write_group(tmp_path / "sys/fs/cgroup", max=1000, current=1001)
    assert free_host_memory(tmp_path) == (0, "within this container's memory limit")


def test_processes_of_one_machine_share_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(residency.psutil, "virtual_memory", lambda: Available(8 * GIB))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_host_memory(tmp_path) == (2 * GIB, "on this machine for each of 4 processes")
