"""How long the 585-run table takes on 1, 8 and 64 machines: a simulation from measured steps, for docs/clusters.md.

`python -m docs.clusters` prints its table. What it stands on is in `nbs/bench.json`: images per second of KD of three
pairs of nets, the time of other methods beside KD, and the time of eight students together. Other nets take their
operations at the speed of the measured pair that is next in size; methods that were not measured take the median of the
others.
"""
import heapq
import json
import re
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median

from kdnb.experiments import Job, sweep_commands, training_cost
from kdnb.experiments.clusters import group_jobs, group_size
from kdnb.experiments.jobs import LARGEST_GROUP
from kdnb.text import Column, Table

ROOT = Path(__file__).resolve().parent.parent
METHODS = ['kd', 'fitnet', 'at', 'nst', 'sp', 'rkd', 'pkt', 'ofd', 'dkd', 'dist', 'wttm', 'review', 'crd', 'vid', 'cc']
EPOCHS, IMAGES = 240, 45_000
DAY = 24*60*60

class Measured:
    "Seconds of runs, from the rows of a benchmark."
    def __init__(self, path: Path = ROOT/'nbs/bench.json'):
        found = json.loads(path.read_text(encoding='utf-8'))
        self.about, rows = found['about'], {row['name']: row for row in found['rows']}
        self.rates = {tuple(pair): rows[f"{' -> '.join(pair)}, batch 64: kdnb"]['value']['median']
                      for pair in (('resnet56', 'resnet20'), ('wrn_40_2', 'wrn_16_2'), ('resnet32x4', 'resnet8x4'))}
        self.times = {row['method']: row['time']['median'] for row in found['methods']['rows']}
        self.eight = rows['8 students of one resnet56']['ratio']['median']

    def image(self, student: str, teacher: str | None) -> float:
        "Seconds of an image, with KD or alone: its operations, as fast as in the measured pair next in size."
        own = training_cost(student, teacher, 1)
        known = {training_cost(s, t, 1): rate for (t, s), rate in self.rates.items()}
        near = min(known, key=lambda operations: abs(log(operations/own)))
        return own/(near*known[near])

    def seconds(self, teacher: str | None, student: str, method: str | None) -> float:
        "Seconds of a whole run."
        if teacher is None: return EPOCHS*IMAGES*self.image(student, None)
        usual = median(v for name, v in self.times.items() if name in METHODS)
        return EPOCHS*IMAGES*self.image(student, teacher)*self.times.get(method or '', usual)/self.times['kd']

    def asked_once(self, teacher: str, student: str) -> float:
        "Seconds that a further student of a group saves: its teacher has answered already."
        def share(pair): return 1 - training_cost(pair[1], None, 1)/training_cost(pair[1], pair[0], 1)
        known = ('resnet56', 'resnet20')
        part = (1 - self.eight)*8/7*share((teacher, student))/share(known)
        return EPOCHS*IMAGES*self.image(student, teacher)*part

@dataclass(frozen=True)
class Run:
    "A run of the table."
    seconds: float
    saved: float
    teacher: str | None

def table_jobs(measured: Measured) -> tuple[list[Job], dict[str, Run]]:
    "The jobs of the table in their order, and what each takes."
    jobs, runs, nets = [], {}, {}
    for words in sweep_commands('crd', seeds=3, methods=METHODS):
        said = dict(zip(words[1::2], words[2::2]))
        name, by, student = said['--run'], said.get('--teacher'), said['--student']
        nets[name] = student
        method = name.split('-')[-2] if by else None
        teacher = nets[by] if by else None
        saved = measured.asked_once(teacher, student) if teacher else 0.
        runs[name] = Run(measured.seconds(teacher, student, method), saved, by)
        jobs.append(Job(name, EPOCHS, print, [by] if by else [], int(said['--seed']), runs[name].seconds))
    return jobs, runs

def task_seconds(group: list[Job], runs: dict[str, Run]) -> float:
    "Seconds of a task: all its runs, with one pass of their teacher."
    first, *others = (runs[job.run] for job in group)
    return first.seconds + sum(run.seconds - run.saved for run in others)

def simulate(jobs: list[Job], runs: dict[str, Run], machines: int, most: int) -> dict[str, float]:
    "Tasks of up to `most` runs begin in their order, each when its teacher is there and a machine is free."
    groups = group_jobs(jobs, {run for job in jobs for run in job.needs}, most)
    free, done, work = [0.]*machines, {}, 0.
    waiting = [(i, group) for i, group in enumerate(groups)]
    while waiting:
        now = heapq.heappop(free)
        ready = [(max([now, *(done[run] for run in group[0].needs)]), i, group) for i, group in waiting
                 if all(run in done for run in group[0].needs)]
        start, i, group = min(ready)
        took = task_seconds(group, runs)
        done |= dict.fromkeys((job.run for job in group), start + took)
        work += took
        heapq.heappush(free, start + took)
        waiting.remove((i, group))
    end = max(done.values())
    return dict(tasks=len(groups), days=end/DAY, idle=1 - work/(machines*end), work=work/DAY)

def simulation_table() -> Table:
    "Makespan and idle share on 1, 8 and 64 machines, with groups and without."
    jobs, runs = table_jobs(Measured())
    rows = []
    for machines in (1, 8, 64):
        for most in sorted({LARGEST_GROUP, group_size(len(jobs), machines), 1}, reverse=True):
            found = simulate(jobs, runs, machines, most)
            own = ' (kdnb)' if most == group_size(len(jobs), machines) else ''
            rows.append([machines, f'{most}{own}', found['tasks'], found['days'], 100*found['idle'], found['work']])
    columns = ['machines', 'runs in a task', 'tasks', Column('makespan', '.1f', 'days'), Column('idle', '.1f', '%'),
               Column('work', '.0f', 'machine-days')]
    return Table(columns, rows)

def clusters_page() -> str:
    "docs/clusters.md with the table of today."
    text = (ROOT/'docs/clusters.md').read_text(encoding='utf-8')
    return re.sub(r'\| machines \|.*?\n\n', lambda _: f'{simulation_table().markdown()}\n\n', text, flags=re.S)

if __name__ == '__main__':
    print(simulation_table().text())
