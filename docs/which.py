"""The page "Which method?", made from the cards: what each method needs, what it costs, and what was found of it.

Nothing on it is typed beside the sentences: needs are read from the cards, prices are those of `make bench`, our own
gains are of runs of the zoo, and published gains are those that `kdnb.systems` holds, with their source.
"""
from pathlib import Path
from statistics import mean

from bench.methods import BESIDE
from bench.speed import machines
from kdnb.all import load_results
from kdnb.methods import CAT, SDD
from kdnb.schemes import needs_classes
from kdnb.systems import Published, find_preset
from kdnb.text import Column, Table, format_number

from .cards import ROOT, Cards, method_cards, own_term, read_rows

NEEDS = dict(labels='labels', across_the_batch='batch', numbers_of_the_images='index', a_second_view='view')

# of what is no method of a teacher that was trained before: what it is called, and what it needs
OTHERS = {
    'simkd': ("`reuse_classifier`, `SimKD`", "the teacher's classifier, which stays with the student; no labels"),
    'dot': ('`Learner(opt=DOT)` with `kd`', 'a second backward pass; any method beside a loss of labels'),
    'dml(2)': ('`DML([a, b])`', 'two students or more, no teacher'),
    'kdcl(2)': ('`KDCL([a, b])`', 'two students or more, no teacher, labels'),
    'one': ('`ONE(student)`', 'one student with two stages or more, no teacher'),
    'online(2)': ('`Online([a, b])`', 'two students or more with maps, no teacher')}

def needs_of(card: dict) -> dict[str, str | bool]:
    "What a method needs: {'reads': places or logits, and whether labels, larger batches, numbers or a second view}."
    told = card['reads']
    words = {short: key.replace('_', ' ') in told for key, short in NEEDS.items()}
    for key in NEEDS:
        word = key.replace('_', ' ')
        told = told.replace(f' and {word}', '').replace(f', {word}', '')
    return dict(reads='' if told == 'labels' else told) | words

def _price(v: float | None) -> str: return '–' if v is None else format_number('.2f', v)

def _needs_table(cards: Cards) -> Table:
    rows = []
    for card in cards:
        needs = needs_of(card)
        marks = ['yes' if needs[short] else '' for short in NEEDS.values()]
        rows.append([f"[{card['name']}]({card['paper']}) `{card['method']}`", needs['reads'], *marks,
                     card['extra_params'], _price(card['time']), _price(card['memory'])])
    columns = ['method', 'reads', 'labels', 'batch', 'index', 'view', Column('extra parameters', ','), 'time', 'memory']
    return Table(columns, rows)

def _others_table(bench: Path) -> Table:
    prices = {row['method']: row for row in read_rows(bench)[0] if row['method'] in BESIDE}
    def of(name, key): return prices.get(name, {}).get(key, {}).get('median')
    rows = [[what, needs, prices.get(name, {}).get('extra_params'), _price(of(name, 'time')),
             _price(of(name, 'memory'))]
            for name, (what, needs) in OTHERS.items()]
    return Table(['what you type', 'needs', Column('extra parameters', ','), 'time', 'memory'], rows)

def choices(cards: Cards) -> dict[str, list[str]]:
    "{a case: the methods that fit it}, as the cards tell."
    own = {card['method']: (needs_of(card), card) for card in cards if own_term(card['method']).name not in (
        'ls', 'kd_shuffled', 'self')}
    def those(fits): return [method for method, (needs, card) in own.items() if fits(needs, card)]
    return {
        'The teacher is known by its logits only (an ensemble, remembered outputs, another kind of net)':
            those(lambda needs, _: needs['reads'] == 'logits' and not needs['view']),
        'The teacher has other classes, or no classifier':
            [m for m in own if not needs_classes(m) and not isinstance(own_term(m), (CAT, SDD))],  # these name classes
        'Nothing may be trained beside the student': those(lambda _, card: not card['extra_params']),
        'Batches are small': those(lambda needs, _: not needs['batch']),
        'The data stream without numbers of the images': those(lambda needs, _: not needs['index'])}

def _choice_lines(cards: Cards) -> str:
    chosen = choices(cards)
    everything = {card['method'] for card in cards} - {'ls', 'kd_shuffled', 'self'}
    lines = []
    for case, methods in chosen.items():
        left = sorted(everything - set(methods))
        few = len(left) < len(methods)
        named = ', '.join(f'`{method}`' for method in (left if few else methods))
        lines.append(f"- {case}: {'all but ' if few else ''}{named}.")
    return '\n'.join(lines)

def _gains(source: Published, alone: tuple, name: str, kind: slice) -> list[float]:
    "The published gains over the student alone, of the pairs that have a number."
    both = zip(source.scores[name][kind], alone[kind], strict=True)
    return [theirs - base for theirs, base in both if theirs is not None]

def _published_table() -> Table:
    preset = find_preset('crd')
    alone, rows = preset.published[0].scores['alone'], []
    for source in preset.published:
        for name in (n for n in source.scores if n not in ('teacher', 'alone')):
            gains = [_gains(source, alone, name, kind) for kind in (slice(0, 7), slice(7, None))]
            cells = [f'{mean(g):+.2f} ({len(g)})' if g else '–' for g in gains]
            rows.append([f'`{name}`', *cells, source.source, source.rule])
    return Table(['method', 'alike (pairs)', 'unlike (pairs)', 'published by', 'epoch'], rows)

def _own_gains() -> dict[str, list[float]]:
    "{method: its gain over the student alone for each seed}, in the runs of the zoo; the largest mean first."
    found = load_results([str(ROOT/'zoo/shapes-resnet8-*')])
    last = {(row['label'], row['seed']): row['last'] for row in found}
    gains: dict[str, list[float]] = {}
    for (method, seed), value in last.items():
        if method != 'alone' and ('alone', seed) in last:
            gains.setdefault(method, []).append(value - last['alone', seed])
    return dict(sorted(gains.items(), key=lambda item: -mean(item[1])))

def _best_of_ours() -> str:
    gains = {method: mean(values) for method, values in _own_gains().items()}
    best = ', '.join(f'`{method}` {gains[method]:+.1f}' for method in list(gains)[:3])
    return (f"Where features can be read, a loss on them may give more: in our small runs {best} points over the "
            f"student alone, `kd` {gains['kd']:+.1f}.")

def _own_table() -> Table:
    rows = [[f'`{method}`', f'{mean(gains):+.2f}', f'{min(gains):+.2f} to {max(gains):+.2f}', len(gains)]
            for method, gains in _own_gains().items()]
    return Table(['method', 'gain over alone', 'least to most', 'seeds'], rows)

def which_page() -> str:
    "The page as Markdown."
    priced = machines(ROOT/'nbs')[0]
    cards = method_cards(priced.path)
    about = cards.about or {}
    return '\n\n'.join([
        '# Which method?', 'Begin with `kd`: it reads logits only, costs least, and fits any pair with the same '
        f'classes. {_best_of_ours()} Then ask what your case rules out. What each computes: '
        '[a page a method](https://kdnb.github.io/kdnb/methods/index.html).',
        '## By what you have', _choice_lines(cards),
        '## What each needs', '*reads*: what is compared. *batch*: images of a batch are compared with each other, so '
        'small batches tell little. *index*: the number of each image in train. *view*: a second augmentation, which '
        'both models see. *extra parameters*: trained beside the student and thrown away, resnet56 to resnet20. *time* '
        f"and *memory*: of a step, by those of KD; {about.get('teacher')} to {about.get('student')}, batch "
        f"{about.get('bs')}, {about.get('dtype')}, {about.get('device')}, {about.get('machine')}, {about.get('date')}"
        f"{cards.noise()}; – where it was not measured.",
        _needs_table(cards).markdown(raw=True),
        '## Without a teacher trained before, and what goes with any method', 'The whole of what is trained counts: '
        'extra parameters are all beside the one student that is kept.', _others_table(priced.path).markdown(raw=True),
        '## What our runs say', 'Points on test of a resnet8 on 500 drawn images (`load_data(\'shapes\')`), last '
        'epoch, each seed beside the student alone of the same seed. A small data set and one pair: it says '
        'that a teacher helps and that its softness alone does not. Runs on all of '
        'CIFAR-100 are in [results](results.md).',
        _own_table().markdown(raw=True),
        '## What others published', '**Published, not ours**: mean gain in points over the student alone on CIFAR-100, '
        'over the seven pairs of nets alike and the six unlike of the preset `crd`. The student alone is '
        'RepDistiller\'s everywhere. Sources differ in recipe and in which epoch they report, so two sources are not a '
        'comparison; `kdnb_sweep crd` makes one.', _published_table().markdown(raw=True)]) + '\n'
