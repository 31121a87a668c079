"""A container's quota of processors, from faked files: threads and workers are no more than it lets run."""
import os
from pathlib import Path

import pytest
import torch

from kdnb import parallel
from kdnb.all import Learner, resnet
from kdnb.cli import kdnb_test
from kdnb.parallel import cores, count_cores, fit_threads

V1 = '4:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n'


@pytest.fixture
def many(monkeypatch):
    "A machine of 64 processors."
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(64)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_text(text)
    return root


@pytest.mark.parametrize('files, n', [
    ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '200000 100000\n'}, 2),
    ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '50000 100000\n'}, 1),
    ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': 'max 100000\n'}, 64),
    ({'proc/self/cgroup': '0::/user/job\n', 'sys/fs/cgroup/user/cpu.max': '300000 100000\n',
      'sys/fs/cgroup/user/job/cpu.max': 'max 100000\n'}, 3),
    ({'proc/self/cgroup': V1, 'sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us': '200000\n',
      'sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us': '100000\n'}, 2),
    ({'proc/self/cgroup': V1, 'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '250000\n',
      'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n'}, 2),
    ({'proc/self/cgroup': V1, 'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
      'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n'}, 64),
    ({'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': 'odd\n'}, 64),
    ({'proc/self/cgroup': 'odd\n'}, 64), ({}, 64)])
def test_what_a_quota_leaves(files, n, tmp_path, many):
    assert count_cores(write(tmp_path, files)) == n


def test_affinity_counts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {3}, raising=False)
    assert count_cores(write(tmp_path, {'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/cpu.max': '800000 100000\n'})) == 1


@pytest.fixture
def threads(monkeypatch):
    "The numbers of threads that PyTorch is told; it says that it has 64."
    told: list[int] = []
    monkeypatch.setattr(torch, 'get_num_threads', lambda: told[-1] if told else 64)
    monkeypatch.setattr(torch, 'set_num_threads', told.append)
    monkeypatch.setattr(cores, 'count_cores', lambda: 2)
    monkeypatch.setattr(cores, '_fitted', [])
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    return told


def test_a_learner_and_a_command_keep_to_it(threads, data, monkeypatch, capsys):
    Learner(resnet(8), data, cbs=None)
    assert threads == [2]
    monkeypatch.setattr(cores, '_fitted', [])
    threads.clear()
    kdnb_test(['no-such-run'])
    assert threads == [2]


def test_what_you_set_holds(threads, monkeypatch):
    fit_threads()
    threads.append(8)                                    # torch.set_num_threads(8) of yours
    fit_threads()
    assert threads == [2, 8]
    monkeypatch.setattr(cores, '_fitted', [])
    monkeypatch.setenv('OMP_NUM_THREADS', '16')
    fit_threads()
    assert threads == [2, 8]


def test_workers_of_a_stream_are_counted_by_it(monkeypatch):
    import kdnb.data.reading as reading
    assert reading.count_cores is parallel.count_cores
