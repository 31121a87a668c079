"""Tell as Markdown what `make bench` found on a machine: figures beside the goals, levers, and where the time goes.

A speed that is typed into a README was true on some machine, once. Here each figure is read from the file that the
benchmark wrote, with the least and the most of its rounds, the machine, the versions and the day. The goals were set
before anything was measured, and stay when they are missed. Those of a GPU mean nothing on a CPU.

We left out a history of speeds: each file is of its own day and machine, and two of them are not a pair.
"""
import json
from collections.abc import Callable
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

from kdnb.text import Table

from .growth import SQUARED

class Speed(dict):
    """What `make bench` wrote into a file; its methods tell it as Markdown."""
    def __init__(self, path: str | Path):
        try:
            found = json.loads(Path(path).read_text(encoding='utf-8'))
            complete = 'rows' in found and 'device' in found['about']
        except (ValueError, KeyError, TypeError):
            complete = False
        except OSError as e:
            raise OSError(f'{path} cannot be read ({e.strerror}): write it with make bench') from None
        if not complete: raise ValueError(f'{path} is not what `make bench` writes: make it again')
        super().__init__(found)
        self.path = Path(path)

    def rows(self, section: str, **having) -> list[dict]:
        "The rows of a section that were measured, and that have these entries."
        measured = [r for r in self['rows'] if r['section'] == section and r['ratio']]
        return [r for r in measured if all(r.get(k) == v for k, v in having.items())]

    @property
    def priced(self) -> int:
        "How many methods have a price."
        return len((self.get('methods') or {}).get('rows', ()))

    @property
    def machine(self) -> str:
        "What it was measured on, as a heading."
        about = self['about']
        return f"{about['device']}, {about['cores']} cores{', ' + about['machine'] if 'machine' in about else ''}"

    def paragraph(self) -> str:
        "What it costs to train here and by the plain way, with where and when it was measured."
        told = [f"{r['students']} students beside one teacher take {spread_words(r['ratio'])} of the time of as many "
                'by themselves' for r in self.rows('together')[-1:]]
        told += [f"a step needs {spread_words(r['ratio'])} of the plain way's memory at batch {r['bs']}"
                 for r in self.rows('memory', way='kdnb')[:1]]
        told += [f"`{r['name'].split(',')[0]}` takes {spread_words(r['value'], 4)} s beyond torch's own import"
                 for r in import_rows(self)]
        sentence = '; '.join(told)
        table = f'{speed_table(self)}\n\n{sentence[:1].upper()}{sentence[1:]}. ' if told else ''
        return f"{table}{where_measured(self['about'])}."

    def goals(self) -> str:
        "A table of the goals, what was reached, and whether that is enough."
        return Table(['', 'goal', 'reached', 'met'], [goal.cells(self) for goal in GOALS]).markdown(raw=True)

    def levers(self) -> str:
        "A table of the levers: how fast it is with or without one, and what it gives."
        rows = [[r['name'], spread_words(r['ratio']), spread_words(r['gives']) if r.get('gives') else '']
                for r in self.rows('levers')]
        columns = ['resnet56 → resnet20, batch 64', 'by the plain way', 'what the lever gives']
        return Table(columns, rows).markdown(raw=True)

    def limits(self) -> str:
        "What the hardware can do, and a table of the share of it that a step reaches."
        can = '; '.join(f"{r['name']}: {spread_words(r['value'], 0)} {r['unit']}" for r in self.rows('limits'))
        shares = by_nets(self, 'shares', 'share that a step reaches', share_words)
        return f'{can[:1].upper()}{can[1:]}.\n\n{shares}'

    def growth(self) -> str:
        "A table of how the time of a step grows with each quantity; '' where that was not measured."
        lines = [Line.through(self.rows('growth', what=what)) for what in growing(self)]
        if not lines: return ''
        return Table(['quantity', 'from', 'to', 'ms a step', 'line, ms', 'off it at most'],
                     [line.cells() for line in lines]).markdown(raw=True)

    def profile(self) -> str:
        "Three small tables: parts of a step, kinds of work, and the bound."
        return '\n\n'.join([
            by_nets(self, 'parts', 'part of a step', share_words), by_nets(self, 'kinds', 'kind of work', share_words),
            by_nets(self, 'bound', 'the bound, by the plain way', spread_words)])

def machines(folder: str | Path) -> list[Speed]:
    "What was measured on each machine, `bench*.json` in a folder, the most methods first."
    found = [Speed(path) for path in sorted(Path(folder).glob('bench*.json'))]
    return sorted(found, key=lambda speed: -speed.priced)

# --- words

def spread_words(spread: dict, digits: int = 2) -> str:
    "A median, with the least and the most."
    return f"**{spread['median']:.{digits}f}** ({spread['min']:.{digits}f} to {spread['max']:.{digits}f})"

def share_words(spread: dict) -> str:
    "A share in percent, with the least and the most."
    return f"**{spread['median']:.0%}** ({spread['min']:.0%} to {spread['max']:.0%})"

def where_measured(about: dict) -> str:
    "Machine, versions, data, day and command."
    images = 'noise in the form of CIFAR-100' if about['data'] == 'noise' else 'CIFAR-100'
    quick = '; QUICK: no measure of speed' if about['quick'] else ''
    return (f"{about['device']}, {about['cores']} cores, PyTorch {about['torch']}, {images}, median (least to most) of "
            f"{about['pairs']} rounds, {about['date']}, `{about['command']}`{about.get('busy', '')}{quick}")

# --- tables

def speed_table(speed: Speed) -> str:
    "A row for each pair of nets and batch size."
    def cell(row: dict, way: str) -> str:
        found = speed.rows('speed', way=way, bs=row['bs'], nets=row['nets'])
        return f"{spread_words(found[0]['ratio'])}, {found[0]['value']['median']:,.0f}/s" if found else '–'

    rows = [[' → '.join(r['nets']), r['bs'], f"1, {r['value']['median']:,.0f}/s", cell(r, 'kdnb'),
             cell(r, 'kdnb, compile=True')] for r in speed.rows('speed', way='the plain way')]
    return Table(['teacher, student', 'batch', 'the plain way', 'kdnb', '`compile=True`'], rows).markdown(raw=True)

def by_nets(speed: Speed, section: str, head: str, cell: Callable[[dict], str]) -> str:
    "A table of a section with a column for each pair of nets."
    rows = speed.rows(section)
    nets = [*dict.fromkeys(tuple(r['nets']) for r in rows)]
    found = {(r['name'], tuple(r['nets'])): cell(r['ratio']) for r in rows}
    names = [*dict.fromkeys(r['name'] for r in rows)]
    columns = [head, *map(' → '.join, nets)]
    cells = [[name, *(found.get((name, pair), '–') for pair in nets)] for name in names]
    return Table(columns, cells).markdown(raw=True)

# --- growth

def growing(speed: Speed) -> list[str]:
    "The quantities that were raised."
    return [*dict.fromkeys(r['what'] for r in speed.rows('growth'))]

class Line(NamedTuple):
    """The straight line that is nearest to some times, over the work that a quantity makes."""
    what: str
    at: list[int]
    work: list[int]
    ms: list[float]
    base: float
    slope: float

    @classmethod
    def through(cls, rows: list[dict]) -> 'Line':
        "The line of least squares through the least times: what passes by on a machine only adds to one."
        what, at = rows[0]['what'], [r['at'] for r in rows]
        work, ms = [v**2 if what in SQUARED else v for v in at], [1000*r['value']['min'] for r in rows]
        slope, base = linear_regression(work, ms)
        return cls(what, at, work, ms, base, slope)

    @property
    def off(self) -> float:
        "How far a time is from the line at most, as a share of it."
        return max(abs(y - self.base - self.slope*x)/y for x, y in zip(self.work, self.ms, strict=True))

    def cells(self) -> list[str]:
        "The line as the cells of a table."
        over = f"{self.what}{'²' if self.what in SQUARED else ''}"
        return [over, f'{self.at[0]:,}', f'{self.at[-1]:,}', f'{self.ms[0]:,.0f} to {self.ms[-1]:,.0f}',
                f'{self.base:,.1f} + {self.slope:.3g} · {over}', f'{self.off:.0%}']

# --- goals

def import_rows(speed: Speed) -> list[dict]:
    "The row of `import kdnb`."
    return [r for r in speed.rows('start') if r['name'].startswith('import kdnb')]

def least_ratio(speed: Speed, bs: int) -> float | None:
    "Images a second by the plain way's, of the pair of nets with the least."
    return min((r['ratio']['median'] for r in speed.rows('speed', way='kdnb', bs=bs)), default=None)

def best_rate(speed: Speed) -> float | None:
    "Images a second of resnet56 → resnet20, by the best way and batch."
    rows = speed.rows('speed', nets=['resnet56', 'resnet20'])
    return max((r['value']['median'] for r in rows if r['way'] != 'the plain way'), default=None)

def minutes_of_240_epochs(speed: Speed) -> float | None:
    "What the full schedule takes at the best rate."
    rate = best_rate(speed)
    return 240*50_000 / rate / 60 if rate else None

def eight_together(speed: Speed) -> float | None:
    "The time of eight students together by that of eight by themselves."
    return next((r['ratio']['median'] for r in speed.rows('together', students=8)), None)

def import_seconds(speed: Speed) -> float | None:
    "Seconds of `import kdnb` beyond torch's own."
    return next((r['value']['median'] for r in import_rows(speed)), None)

def _reached(value: float | None, device: str) -> str:
    "What was reached, in words."
    if value is None: return 'not measured: no GPU' if device == 'cuda' else 'not measured here'
    if value >= 100: return f'{value:,.0f}'
    return f'{value:.2f}' if value >= .01 else f'{value:.4f}'

class Goal(NamedTuple):
    """A goal; `device` is 'cpu', 'cuda', or '' for any."""
    what: str
    device: str
    find: Callable[[Speed], float | None]
    bound: float
    more: bool                                      # whether more is better

    def cells(self, speed: Speed) -> list[str]:
        "The goal as the cells of a table."
        here = 'cpu' if speed['about']['device'].startswith('CPU') else 'cuda'
        value = self.find(speed) if self.device in ('', here) else None
        place = {'cuda': ' [GPU]', 'cpu': ' [CPU]', '': ''}[self.device]
        return [self.what + place, f"{'≥' if self.more else '≤'} {self.bound:,}", _reached(value, self.device),
                self.verdict(value)]

    def verdict(self, value: float | None) -> str:
        "'yes', '**missed**', or '' where there is no value."
        if value is None: return ''
        met = value >= self.bound if self.more else value <= self.bound
        return 'yes' if met else '**missed**'

_by_plain = 'images/s by the plain way, batch {}, least of the pairs of nets'

GOALS = (
    Goal(_by_plain.format(64), 'cpu', lambda s: least_ratio(s, 64), 2.5, True),
    Goal(_by_plain.format(128), 'cpu', lambda s: least_ratio(s, 128), 2.5, True),
    Goal(_by_plain.format(64), 'cuda', lambda s: least_ratio(s, 64), 10, True),
    Goal('images/s of resnet56 → resnet20', 'cuda', best_rate, 100_000, True),
    Goal('minutes of 240 epochs of CIFAR-100, at that rate', 'cuda', minutes_of_240_epochs, 3, False),
    Goal('time of 8 students together by 8 by themselves', '', eight_together, .65, False),
    Goal("seconds of `import kdnb` beyond torch's own", '', import_seconds, .2, False))
