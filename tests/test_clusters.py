"""Sweeps beyond one machine: parts of a table for SLURM, and what is missing for a cluster is told before any run."""
import os
import shlex
import socket
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from docs.clusters import DAY, Run, simulate, simulation_table
from kdnb.cli import kdnb_sweep
from kdnb.errors import CannotRun, Interrupted
from kdnb.experiments import Job, sweep
from kdnb.experiments.clusters import _Whole
from kdnb.experiments.jobs import JobBook
from kdnb.files import runs_root

ROOT = Path(__file__).resolve().parent.parent
SMALL = ('crd --pair resnet56 resnet20 --method kd --seeds 2 --data digits --size 8 --n-train 70 --valid 0 --epochs 1 '
         '--device cpu').split()


def listed(capsys, *more):
    "The runs that a dry run prints."
    capsys.readouterr()
    assert kdnb_sweep([*SMALL, *more, '--dry-run']) == 0
    lines = [shlex.split(line, comments=True) for line in capsys.readouterr().out.splitlines()]
    return [words[-1] for words in lines if words]


def test_parts_are_the_whole(capsys):
    whole, parts = listed(capsys), [listed(capsys, '--part', f'{i}/3') for i in range(3)]
    teacher, students = whole[0], whole[1:]
    assert sorted(run for part in parts for run in part if run != teacher) == sorted(students)
    assert [teacher in part for part in parts] == [any('-by-' in run for run in part) for part in parts]
    assert listed(capsys, '--part', '0/1') == whole


def test_a_chain_keeps_what_it_needs(capsys):
    assert kdnb_sweep(['takd', '--part', '1/2', '--dry-run']) == 0
    out = capsys.readouterr().out
    assert 'the students, in any order' in out and out.count('kdnb_distill') >= 2


@pytest.mark.parametrize('words, says', [
    ('--part 3/3 --dry-run', 'write it as I/N'), ('--part x --dry-run', 'write it as I/N'),
    ('--part 0/99 --dry-run', '4 students are too few for 99 parts'), ('--slurm 2', '--slurm prints a script'),
    ('--slurm 99 --dry-run', '4 students are too few for 99 parts'), ('--slurm 0 --dry-run', 'from 1 up, not 0'),
    ('--address auto', "are for the engine 'ray'"), ('--engine ray --gpus 2', 'from 0 to 1, not 2'),
    ('--engine ray --cores 0', 'cores must be a whole number from 1 up')])
def test_mistakes_are_sentences(words, says, capsys, runs):
    assert kdnb_sweep([*SMALL, *words.split()]) == 1
    out, err = capsys.readouterr()
    assert err.startswith('kdnb_sweep: ') and says in err and err.count('\n') == 1 and not runs.exists()


@pytest.mark.slow
def test_the_slurm_script_makes_its_part(capsys, tmp_path):
    assert kdnb_sweep([*SMALL, '--slurm', '2', '--dry-run']) == 0
    script = capsys.readouterr().out
    lines = script.splitlines()
    assert lines[0] == '#!/bin/bash' and '#SBATCH --array=0-1' in lines and '--gpus-per-task' not in script
    assert any(line.startswith('# 5 runs, 5 epochs in all, about ') and 'PFLOP' in line for line in lines)
    (tmp_path/'table.sh').write_text(script)
    env = os.environ | dict(SLURM_ARRAY_TASK_ID='1', KDNB_RUNS=str(tmp_path/'runs'), PYTHONPATH=str(ROOT),
                            PATH=f'{Path(os.sys.executable).parent}:{os.environ["PATH"]}')
    done = subprocess.run(['bash', 'table.sh'], cwd=tmp_path, env=env, timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {p.parent.name for p in tmp_path.glob('runs/*/result.json')}
    assert made == set(listed(capsys, '--part', '1/2')) and len(made) == 3


def test_a_simulation_by_hand():
    """The teacher takes 5; then a group of two (4 + 4 less a pass of 3) and one of another seed (4) on two machines."""
    students = [Job(f's{i}', 1, print, ['t'], group=i // 2, cost=4) for i in range(3)]
    jobs = [Job('t', 1, print, group=0, cost=5), *students]
    runs = {job.run: Run(job.cost*DAY, 3*DAY if job.needs else 0., 't' if job.needs else None) for job in jobs}
    assert simulate(jobs, runs, 2, 8) == pytest.approx(dict(tasks=3, days=10, idle=1 - 14/20, work=14))
    assert simulate(jobs, runs, 1, 1) == pytest.approx(dict(tasks=4, days=17, idle=0, work=17))


def test_the_simulated_table():
    rows = simulation_table().records()
    for row in rows:
        assert row['work'] <= row['makespan']*row['machines']*1.0001
        assert row['idle'] == pytest.approx(100*(1 - row['work']/row['makespan']/row['machines']), abs=.01)
    alone = [row for row in rows if row['runs in a task'] == '1']
    assert [row['tasks'] for row in alone] == [585 + 27 + 6]*3 and len({round(row['work']) for row in alone}) == 1


class Ray:
    "What the engine needs of Ray, in this process."
    class exceptions:
        WorkerCrashedError = NodeDiedError = RayError = RuntimeError

    def __init__(self): self.tasks = []

    @staticmethod
    def is_initialized(): return False

    def wait(self, tasks, **_): return tasks[:1], tasks[1:]

    def get(self, task): return task()

    def cancel(self, task): self.tasks.append('cancelled')


@pytest.mark.parametrize('most', [1, 8])
def test_tasks_begin_when_their_teacher_is_there(most, runs):
    def submit(names):
        fake.tasks.append(names)
        return lambda: {'s1': 'a reason'} if 's1' in names else {}

    fake, told = Ray(), []
    jobs = [*(Job(f's{i}', 1, print, ['t'], group=0) for i in range(3)), Job('t', 1, print), Job('u', 1, print, ['s1'])]
    book = JobBook(jobs)
    _Whole(fake, book, told.append, submit, most).make(.1)
    assert fake.tasks == [['t'], ['s1'], *([['s0', 's2']] if most == 8 else [['s0'], ['s2']])]
    assert book.failed == {'s1': 'a reason', 'u': 'skipped, as there is no teacher s1'}
    assert book.done == {'t', 's0', 's2'}
    assert told[0] == '1 of 5 runs done, 0 running, 4 left' and 'failed: s1: a reason' in told


def test_a_lost_machine_and_ctrl_c(runs):
    def lost(): raise RuntimeError

    def interrupted(): raise KeyboardInterrupt

    book = JobBook([Job('a', 1, print)])
    _Whole(Ray(), book, print, lambda names: lost, 1).make(.1)
    assert book.failed == {'a': 'its machine was lost 6 times: the same call goes on with it'}
    fake = Ray()
    book = JobBook([Job('a', 1, print), Job('b', 1, print)])
    whole = _Whole(fake, book, print, lambda names: lambda: interrupted(), 1)
    with pytest.raises(Interrupted, match='the tasks of the sweep are cancelled'):
        whole.make(.1)
    assert fake.tasks == ['cancelled']


@pytest.mark.usefixtures('quiet')
class TestWithoutACluster:
    def test_no_ray(self, data, runs, monkeypatch):
        def absent(name):
            if name == 'ray': raise ImportError("No module named 'ray'")
            return import_module(name)

        monkeypatch.setattr('kdnb.experiments.clusters.import_module', absent)
        with pytest.raises(CannotRun, match=r"'ray' needs the package ray \(No module.*: pip install 'kdnb\[ray\]'"):
            sweep('resnet8', method='ls', data=data, engine='ray')
        assert not runs.exists()

    def test_no_cluster(self, data, runs, monkeypatch):
        with socket.socket() as free:                   # bound, and nobody listens
            free.bind(('127.0.0.1', 0))
            address = f'127.0.0.1:{free.getsockname()[1]}'
            monkeypatch.setattr('kdnb.experiments.clusters.import_module', lambda name: Ray)
            with pytest.raises(CannotRun, match=f'no Ray cluster answers at {address} within 10 seconds .*ray start'):
                sweep('resnet8', method='ls', data=data, engine='ray', address=address, seeds=1)
        with pytest.raises(ValueError, match="'nowhere' is no address of a cluster: give 'host:6379'"):
            sweep('resnet8', method='ls', data=data, engine='ray', address='nowhere', seeds=1)
        assert not runs.exists()

    def test_unknown_engine(self, data):
        with pytest.raises(ValueError, match="unknown engine 'rya': did you mean ray"):
            sweep('resnet8', method='ls', data=data, engine='rya')


def test_runs_are_folders(monkeypatch):
    monkeypatch.setenv('KDNB_RUNS', 's3://bucket/runs')
    with pytest.raises(ValueError, match='runs are folders, and s3://bucket/runs is an address: mount it'):
        runs_root()
