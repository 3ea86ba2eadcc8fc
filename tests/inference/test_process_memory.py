import pytest
import torch

from medseg.inference import process_memory as memory
from medseg.inference.process_memory import peak_bytes, peak_of, resident_bytes

CPU = torch.device("cpu")


def test_a_peak_is_what_was_allotted_and_freed_again():
    with peak_of(CPU) as peak:
        torch.ones(48 << 18)  # 48 MiB
        kept = torch.ones(1 << 18)
    if peak() is None:
        pytest.skip("this system does not tell a peak that begins anew")
    assert 48 << 20 <= peak() + 1e6 <= 64 << 20
    assert kept.sum() == 1 << 18


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_of_all_groups_counts(tmp_path, version):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, usage, cached = names if version == 1 else ("memory.max", "memory.current", "inactive_file")
    root = tmp_path / "memory" if version == 1 else tmp_path
    for folder, most in ((root / "a" / "b", 1000), (root / "a", 600)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text("500\n")
        (folder / "memory.stat").write_text(f"anon 7\n{cached} 40\n")
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/a/b\n3:cpu:/x\n" if version == 1 else "0::/a/b\n")
    assert sorted(memory._free_of_groups(membership, tmp_path)) == [140, 540]
    (root / "a" / limit).write_text("max\n")
    assert list(memory._free_of_groups(membership, tmp_path)) == [540]
    assert memory.free_bytes() > 0


def test_a_peak_outlives_a_measurement_that_lets_it_begin_anew():
    torch.ones(64 << 18)  # 64 MiB
    before = peak_bytes()
    with peak_of(CPU):
        pass
    assert peak_bytes() >= before >= resident_bytes()
