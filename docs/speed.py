"""What `make bench` found on one machine, told from its file: the figures beside the goals, and the profile that says why."""

import json
from pathlib import Path


class Speed(dict):
    "What `make bench` wrote: `paragraph()`, `goals()` and `profile()` tell it as Markdown."

    def __init__(
        self,
        path,  # the file
    ):
        try:
            said = json.loads(Path(path).read_text(encoding='utf-8'))
            rows = said['rows'], said['about']['device']
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{path} is not what `make bench` writes: make it again') from None
        except OSError as e:
            raise OSError(f'{path} cannot be read ({e.strerror}): write it with make bench') from None
        super().__init__(said)

    def rows(
        self,
        section,  # 'speed', 'levers', 'together', 'memory', 'start', 'parts', 'kinds', 'bound' or 'card'
        **having,  # further keys of the row
    ):
        "The rows of a section that were measured."
        return [
            r
            for r in self['rows']
            if r['section'] == section and r['ratio'] and all(r.get(k) == v for k, v in having.items())]


def _range(q, digits=2):  # a spread, in words
    return f"**{q['median']:.{digits}f}** ({q['min']:.{digits}f} to {q['max']:.{digits}f})"


def _where(k):
    return (
        f"{k['device']}, {k['cores']} cores, PyTorch {k['torch']}, "
        f"{'noise in the form of CIFAR-100' if k['data'] == 'noise' else 'CIFAR-100'}, median (least to most) of "
        f"{k['pairs']} rounds, {k['date']}, `{k['command']}`" + ('; QUICK: no measure of speed' if k['quick'] else ''))


def _table(head, rows): return '\n'.join(f"| {' | '.join(map(str, r))} |" for r in [head, ['---'] * len(head), *rows])


def _speeds(s):
    "A row for each pair of nets and batch size."

    def cell(r, way):
        q = s.rows('speed', way=way, bs=r['bs'], nets=r['nets'])
        return f"{_range(q[0]['ratio'])}, {q[0]['value']['median']:,.0f}/s" if q else '–'

    plain = s.rows('speed', way='the plain way')
    return _table(
        ['teacher, student', 'batch', 'the plain way', 'kdnb', '`compile=True`'],
        [
            [
                ' → '.join(r['nets']),
                r['bs'],
                f"1, {r['value']['median']:,.0f}/s",
                cell(r, 'kdnb'),
                cell(r, 'kdnb, compile=True')]
            for r in plain])


def _import(s): return [r for r in s.rows('start') if r['name'].startswith('import kdnb')]


def _paragraph(self):
    "What it costs to train here and by the plain way, with where and when it was measured."
    said = [
        f"{r['students']} students beside one teacher take {_range(r['ratio'])} of the time of as many by themselves"
        for r in self.rows('together')[-1:]]
    said += [
        f"a step needs {_range(r['ratio'])} of the plain way's memory at batch {r['bs']}"
        for r in self.rows('memory', way='kdnb')[:1]]
    said += [
        f"`{r['name'].split(',')[0]}` takes {_range(r['value'], 4)} s beyond torch's own import" for r in _import(self)]
    return f"{_speeds(self)}\n\n{'; '.join(said)[:1].upper() + '; '.join(said)[1:]}. {_where(self['about'])}."


Speed.paragraph = _paragraph


def _rate(s):  # images a second of resnet56 -> resnet20, the best way and batch
    return max(
        (r['value']['median'] for r in s.rows('speed', nets=['resnet56', 'resnet20']) if r['way'] != 'the plain way'),
        default=None)


def _least(s, bs): return min((r['ratio']['median'] for r in s.rows('speed', way='kdnb', bs=bs)), default=None)


_goals = [  # what, on which device, how it is found, the goal, whether more is better
    ('images/s by the plain way, batch 64, least of the pairs of nets', 'cpu', lambda s: _least(s, 64), 2.5, True),
    ('images/s by the plain way, batch 128, least of the pairs of nets', 'cpu', lambda s: _least(s, 128), 2.5, True),
    ('images/s by the plain way, batch 64, least of the pairs of nets', 'cuda', lambda s: _least(s, 64), 10, True),
    ('images/s of resnet56 → resnet20', 'cuda', _rate, 100_000, True),
    (
        'minutes of 240 epochs of CIFAR-100, at that rate',
        'cuda',
        lambda s: (r := _rate(s)) and 240 * 50_000 / r / 60,
        3,
        False),
    (
        'time of 8 students together by 8 by themselves',
        '',
        lambda s: next((r['ratio']['median'] for r in s.rows('together', students=8)), None),
        0.65,
        False),
    (
        "seconds of `import kdnb` beyond torch's own",
        '',
        lambda s: next((r['value']['median'] for r in _import(s)), None),
        0.2,
        False)]


def _told_goals(self):
    "A table of the goals, what was reached, and whether that is enough."
    here = 'cpu' if self['about']['device'].startswith('CPU') else 'cuda'

    def line(what, device, find, goal, more):
        v = find(self) if device in ('', here) else None
        found = (
            ('not measured: no GPU' if device == 'cuda' else 'not measured here')
            if v is None
            else f'{v:,.0f}'
            if v >= 100
            else f'{v:.2f}'
            if v >= 0.01
            else f'{v:.4f}')
        met = '' if v is None else 'yes' if (v >= goal if more else v <= goal) else '**missed**'
        return [
            what + ' [GPU]' * (device == 'cuda') + ' [CPU]' * (device == 'cpu'),
            f"{'≥' if more else '≤'} {goal:,}",
            found,
            met]

    return _table(['', 'goal', 'reached', ''], [line(*g) for g in _goals])


Speed.goals = _told_goals


def _profile(self):
    "Three small tables: parts of a step, kinds of work, and the bound."

    def share(q): return f"**{q['median']:.0%}** ({q['min']:.0%} to {q['max']:.0%})"

    return '\n\n'.join(
        [
            _by_nets(self, 'parts', 'part of a step', share),
            _by_nets(self, 'kinds', 'kind of work', share),
            _by_nets(self, 'bound', 'the bound, by the plain way', _range)])


def _by_nets(s, section, head, cell):
    "A table with a column for each pair of nets."
    rows = s.rows(section)
    names, nets = (
        list(dict.fromkeys(values)) for values in ([r['name'] for r in rows], [tuple(r['nets']) for r in rows]))
    found = {(r['name'], tuple(r['nets'])): cell(r['ratio']) for r in rows}
    return _table(
        [head, *map(' → '.join, nets)], [[name, *(found.get((name, n), '–') for n in nets)] for name in names])


Speed.profile = _profile


def _levers(self):
    "A table of the levers: how fast it is with or without one, and what it gives."
    rows = [[r['name'], _range(r['ratio']), _range(r['gives']) if r.get('gives') else ''] for r in self.rows('levers')]
    return _table(['resnet56 → resnet20, batch 64', 'by the plain way', 'what the lever gives'], rows)


Speed.levers = _levers
