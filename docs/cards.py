"""One table of all methods: paper, equation, what it reads, what it adds, what a step costs, what it forgives and where it fails, each line with the way to its cell, its tutorial and its test."""

import copy
import json
import re
from fractions import Fraction
from functools import cache
from html import escape
from pathlib import Path

import torch

from kdnb.methods import CE, parse_method, tap_pairs
from kdnb.models import create_model, num_params
from kdnb.schemes import Distill
from kdnb.seeds import seeded


def _numbers(*shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _order(n): return _numbers(n).argsort()


def _turn(n): return torch.linalg.qr(_numbers(n, n))[0]


def _sizes(*shape): return 0.5 + _numbers(*shape).abs()


_features = {
    'rotation': lambda f: (f.flatten(1) @ _turn(f[0].numel())).view_as(f),
    'rotation of channels': lambda f: torch.einsum('bchw,cd->bdhw', f, _turn(f.shape[1])),
    'order of channels': lambda f: f[:, _order(f.shape[1])],
    'signs of channels': lambda f: f * _numbers(f.shape[1], 1, 1).sign(),
    'order of places': lambda f: f.flatten(2)[..., _order(f[0, 0].numel())].view_as(f),
    'scale of each image': lambda f: f * _sizes(len(f), 1, 1, 1),
    'scale of each channel': lambda f: f * _sizes(f.shape[1], 1, 1),
    'scale': lambda f: 7 * f,
    'shift': lambda f: f + 5 * _numbers(*f.shape[1:]),
    'order of images': lambda f: f[_order(len(f))]}


_logits = {
    'constant for each image': lambda z: z + 5 * _numbers(len(z), 1),
    'scale of each image': lambda z: z * _sizes(len(z), 1),
    'scale': lambda z: 7 * z,
    'shift': lambda z: z + 5 * _numbers(z.shape[1]),
    'order of classes': lambda z: z[:, _order(z.shape[1])],
    'order of images': lambda z: z[_order(len(z))]}
_labels = {'order of images': lambda y, n: y[_order(len(y))], 'order of classes': lambda y, n: _order(n).argsort()[y]}


def _own(method):
    "The term that the method is named after; the labels stand before it."
    return copy.copy(parse_method(method)[-1])


def _value(term, s, t, y):
    if hasattr(term, 'margins'):
        term.margins = [None]
        term.measure([t])
    with seeded(0):
        return (term(s, t, y) if term.taps is None else term([s], [t], y)).item()


def _example(term):
    "What student and teacher say of eight images, the labels, and what may be done to it."
    shape = (8, 10) if term.taps is None else (8, 6, 4, 4)
    return *_numbers(2, *shape), torch.arange(8), _logits if term.taps is None else _features


def invariances(
    method,  # 'at', or a Term
) -> dict:  # {change: 'free' to the student alone, 'both' sides alike at no cost, or ''}
    "What may be done to the features or logits that a method reads without changing its loss, found by trying."
    term = _own(method)
    s, t, y, changes = _example(term)
    was = _value(term, s, t, y)

    def same(s, t, y): return abs(_value(term, s, t, y) - was) < 1e-4 * abs(was)

    def moved(name): return _labels[name](y, s.shape[1]) if name in _labels else y

    return {
        name: 'free' if same(f(s), t, y) else 'both' if same(f(s), f(t), moved(name)) else ''
        for name, f in changes.items()}


_implied = {
    'rotation of channels': ('order of channels', 'signs of channels'),
    'scale of each image': ('scale',),
    'scale of each channel': ('scale',)}
_implied['rotation'] = ('rotation of channels', 'order of channels', 'signs of channels', 'order of places')


def _forgiven(method):
    "The free changes in words, without those that follow from others."
    free = [k for k, v in invariances(method).items() if v == 'free']
    return ', '.join(k for k in free if not any(k in _implied.get(more, ()) for more in free)) or 'nothing'


def _reads(term):
    "What a term compares, in words."
    s, t, y, _ = _example(term)
    places = (
        'all stages'
        if term.taps == 'stages'
        else ', '.join(
            'last stage' if a == -1 else f'stage {a}' if isinstance(a, int) else a for a, _ in tap_pairs(term.taps)))
    words = [] if isinstance(term, CE) else [places or 'logits']
    if _value(term, s, t, y) != _value(term, s, t, y.roll(1)):
        words.append('labels')
    how = dict(pre=', before the activation', sum=', raw sums').get(term.reading, '') if places else ''
    return ' and '.join(words) + how + (', across the batch' if term.batchwise else '')


def _in_full(method):
    "The method with every weight, as it may be typed."
    return re.sub(r'0\.\d{7,}', lambda m: str(Fraction(m[0]).limit_denominator(1000)), repr(parse_method(method)))


def extra_params(
    *methods,  # 'ofd', ...
    teacher='resnet56',  # name of the model that teaches
    student='resnet20',  # name of the model that learns
    num_classes=100,  # of both
) -> dict:  # {method: how many}
    "How many parameters methods train beside the student."
    terms = {m: _own(m) for m in methods}
    reading = {m: t for m, t in terms.items() if t.taps is not None}  # who reads logits alone has no adapter
    with seeded(0):
        net = create_model(student, num_classes)
    with seeded(1):
        scheme = Distill(net, create_model(teacher, num_classes), [CE(), *reading.values()])
    adapters = dict(zip(reading, scheme.names[1:]))
    return {m: num_params(scheme.adapters[adapters[m]]) if adapters.get(m) in scheme.adapters else 0 for m in methods}


def _prices(bench):
    "({method in full: row}, about) of a file of `make bench`."
    if bench is None: return {}, None
    try:
        said = json.loads(Path(bench).read_text(encoding='utf-8'))
        said = said['methods'] if 'methods' in said else said
        rows, about = said['rows'], said['about']
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{bench} is not what `make bench` writes: make it again') from None
    except OSError as e:
        raise OSError(f'{bench} cannot be read ({e.strerror}): write it with make bench, or give bench=None') from None
    return {repr(parse_method(r['method'])): r for r in rows if r['method'] != 'alone'}, about


_typed, _tian = {}, '[Tian et al.](https://arxiv.org/abs/1910.10699)'


def _card(method, name, by, arxiv, equation, fails, cell, tutorial, test):
    _typed[method] = dict(
        method=method,
        name=name,
        by=by,
        paper=f'https://arxiv.org/abs/{arxiv}',
        equation=equation,
        fails=fails,
        cell=cell,
        tutorial=f'nbs/tutorials/{tutorial}.ipynb',
        test=f'tests/test_{test}')


_card(
    'kd',
    'KD',
    'Hinton et al. 2015',
    '1503.02531',
    r'$T^2 \mathrm{KL}(\sigma(t/T) \Vert \sigma(s/T))$',
    'a teacher of other classes; a better teacher may teach no better ([resnet20](https://arxiv.org/abs/1910.10699): '
    '70.66 from resnet56, 70.67 from resnet110)',
    'nbs/07_losses/01_logit.ipynb#kd-loss',
    '01_kd',
    'methods.py#test_a_transformer_teaches_by_what_it_says_and_errors_say_so')
_card(
    'kd(9, T=2, standardize=True)',
    'standardised KD',
    'Sun et al. 2024',
    '2403.01427',
    r'KD of $z(s), z(t)$ with $z(x) = (x - \mathrm{mean}\ x) / \mathrm{std}\ x$',
    'how sure the teacher is of an image is lost; weight and T vary with the pair',
    'nbs/07_losses/02_modern.ipynb#standardize-logits',
    '11_modern',
    'cards.py#test_a_step_of_every_card')


_card(
    'dkd',
    'DKD',
    'Zhao et al. 2022',
    '2203.08679',
    r'$T^2 (\alpha \mathrm{KL}(b(t) \Vert b(s)) + \beta \mathrm{KL}(q(t) \Vert q(s)))$; $b$: label or not, $q$: which '
    r'other',
    'beta varies with the pair (2 to 8)',
    'nbs/07_losses/02_modern.ipynb#dkd-loss',
    '11_modern',
    'parallel.py#test_two_ranks_learn_what_one_process_learns')
_card(
    'dist',
    'DIST',
    'Huang et al. 2022',
    '2205.10536',
    r'$T^2 (\beta (1 - \rho) + \gamma (1 - \rho^\top))$; $\rho$: correlation of $\sigma(s/T), \sigma(t/T)$ in rows, '
    r'$\rho^\top$: in columns',
    'small batches: a class is compared across their images',
    'nbs/07_losses/02_modern.ipynb#dist-loss',
    '11_modern',
    'parallel.py#test_without_gathering_it_is_another_loss')
_card(
    'wttm',
    'WTTM',
    'Zheng & Yang 2024',
    '2402.11148',
    r'$U \mathrm{KL}(\sigma(t/T) \Vert \sigma(s))$, $U = \sum \sigma(t)^{1/T}$',
    'images of which the teacher is sure count least; the weight varies with the pair',
    'nbs/07_losses/02_modern.ipynb#wttm-loss',
    '11_modern',
    'methods.py#test_all_methods_at_once_between_nets_of_different_kinds')


_card(
    'fitnet',
    'FitNets',
    'Romero et al. 2015',
    '1412.6550',
    r'$\mathrm{mean} (r(s) - t)^2$; $r$: the regressor',
    'features that are no maps; some unlike nets (64.14 †)',
    'nbs/07_losses/03_feature.ipynb#hint-loss',
    '02_fitnets',
    'methods.py#test_methods_that_never_ran_take_a_step')
_card(
    'at',
    'AT',
    'Zagoruyko & Komodakis 2017',
    '1612.03928',
    r'$\mathrm{mean} (a(s) - a(t))^2$; $a(f)$: $\sum f^2$ over channels, length 1',
    'maps of one pixel; some unlike nets (59.40 †)',
    'nbs/07_losses/03_feature.ipynb#at-loss',
    '03_at',
    'methods.py#test_tokens_can_be_named_by_hand_where_a_loss_takes_any_shape')
_card(
    'nst',
    'NST',
    'Huang & Wang 2017',
    '1707.01219',
    r'$\mathrm{MMD}^2$ of channels, $k(x, y) = (x^\top y)^2$',
    'how loud a channel is is lost; some unlike nets (58.16 †)',
    'nbs/07_losses/03_feature.ipynb#nst-loss',
    '04_nst',
    'parallel.py#test_two_ranks_learn_what_one_process_learns')


_card(
    'ofd',
    'OFD',
    'Heo et al. 2019',
    '1904.01866',
    r'$\sum (c(s) - m)^2$ where $c(s) \gt m$ or $t \gt 0$; $m = \max(t, \mathrm{margin})$, $c$: the connector',
    'no activation behind the tap; another pair\'s weight ([issue '
    '13](https://github.com/clovaai/overhaul-distillation/issues/13): below alone)',
    'nbs/07_losses/03_feature.ipynb#ofd-loss',
    '07_ofd',
    'methods.py#test_margins_are_those_of_the_batchnorm_in_front_of_the_activation')
_card(
    'review',
    'ReviewKD',
    'Chen et al. 2021',
    '2104.09044',
    r'$\sum 2^{-n} \mathrm{mean} (o(s) - o(t))^2$; $o$: outline $n$, $s$ fused with deeper stages',
    'another pair\'s rate, batch and weight ([issue 39](https://github.com/megvii-research/mdistiller/issues/39): 63.5 '
    'to 69.9)',
    'nbs/07_losses/04_review.ipynb#review-loss',
    '11_modern',
    'methods.py#test_methods_that_never_ran_take_a_step')


_card(
    'sp',
    'SP',
    'Tung & Mori 2019',
    '1907.09682',
    r'$\mathrm{mean} (g(s) - g(t))^2$; $g(f)$: $f f^\top$, rows of length 1',
    'batches too small to hold images that are alike',
    'nbs/07_losses/05_relation.ipynb#sp-loss',
    '06_sp',
    'parallel.py#test_without_gathering_it_is_another_loss')
_card(
    'rkd',
    'RKD',
    'Park et al. 2019',
    '1904.05068',
    r'$\lambda \ell(d(s), d(t)) + \mu \ell(\angle s, \angle t)$; $d$: distances / their mean, $\ell$: Huber',
    'batches of two have no angle; scale is lost ([resnet32x4 to resnet8x4](https://arxiv.org/abs/1910.10699): 71.90, '
    'alone 72.50)',
    'nbs/07_losses/05_relation.ipynb#rkd-distance-loss',
    '05_rkd',
    'parallel.py#test_without_gathering_it_is_another_loss')
_card(
    'pkt',
    'PKT',
    'Passalis & Tefas 2018',
    '1803.10837',
    r'$\mathrm{mean}\ p(t) \ln(p(t)/p(s))$; $p \propto 1 + \cos$ of two images',
    'small batches: neighbours are looked for within them',
    'nbs/07_losses/05_relation.ipynb#pkt-loss',
    '11_modern',
    'parallel.py#test_without_gathering_it_is_another_loss')


_card(
    'ls',
    'label smoothing',
    'Szegedy et al. 2016',
    '1512.00567',
    r'$\mathrm{CE}(s, (1 - \epsilon) y + \epsilon/C)$',
    'control: soft targets that know no class from another',
    'nbs/07_losses/01_logit.ipynb#ce-loss',
    '11_modern',
    'cards.py#test_a_step_of_every_card')
_card(
    'kd_shuffled',
    'shuffled KD',
    'Furlanello et al. 2018',
    '1805.04770',
    r'KD of $\pi(t)$; $\pi$: the other classes permuted',
    'control: the teacher\'s softness without its knowledge',
    'nbs/07_losses/01_logit.ipynb#shuffle-rest',
    '11_modern',
    'methods.py#test_shuffling_is_the_same_for_the_same_seed_and_leaves_the_rest_alone')
_card(
    'self',
    'self',
    'Furlanello et al. 2018',
    '1805.04770',
    r'KD; $t$: a twin of another seed',
    'control: a teacher no better than the student',
    'nbs/08_methods/06_controls.ipynb#self-term',
    '11_modern',
    'methods.py#test_self_needs_a_twin')


def _price(v): return '–' if v is None else f'{v:.2f}'


def _row(c, base):
    "A card as the cells of a Markdown table."
    at_cell, at_test = c['cell'].replace('#', '#cell-id='), c['test']
    see = ', '.join(f'[{k}]({base}{v})' for k, v in dict(cell=at_cell, tutorial=c['tutorial'], test=at_test).items())
    return [
        f"[{c['name']}]({c['paper']}), {c['by']}: `{c['method']}`",
        c['equation'],
        c['reads'],
        f"`{c['weights']}`",
        f"{c['extra_params']:,}",
        f"{_price(c['time'])}, {_price(c['memory'])}",
        c['forgives'],
        c['fails'],
        see]


def _html(cell):
    "Links and code of a Markdown cell as HTML."
    cell = re.sub(r'`([^`]*)`', r'<code>\1</code>', escape(cell, quote=False))
    return re.sub(r'\[([^]]*)\]\(([^)]*)\)', r'<a href="\2">\1</a>', cell)


class Cards(list):
    "Cards of methods, a dict each; shown as a table. `.about` says of what, on what and when the prices are."

    head = [
        'method',
        'loss',
        'reads',
        'in full',
        'extra parameters',
        'time, memory',
        'free to the student',
        'weak spots',
        'see']
    site = 'https://github.com/kdnb/kdnb/blob/main/'

    def __init__(self, cards=(), about=None):
        super().__init__(cards)
        self.about = about

    def markdown(
        self,
        base='',  # the way from where it is shown to the top of the repository
    ) -> str:
        "A Markdown table, and a line on where its numbers are from."
        rows = [self.head, ['---'] * len(self.head), *(_row(c, base) for c in self)]
        return '\n'.join(f"| {' | '.join(r)} |" for r in rows) + f'\n\n{self.note()}'


_legend = (
    r'$s$, $t$: what is read of student and teacher, behind the adapter; $\sigma$: softmax. Extra parameters: resnet56 '
    r'to resnet20, 100 classes; trained beside the student, and thrown away. '
    'Free to the student: what it may do to what is read without changing the loss, found by trying. '
    f'†: vgg13 to MobileNetV2, where the student alone has 64.60 and KD 67.37 ({_tian}).')


def _note(self):
    "Where the numbers are from."
    k, kd = self.about, next((c['spread'] for c in self if c['method'] == 'kd' and c['spread']), None)
    where = k and (k['device'] if k['device'].endswith('threads') else f"{k['device']}, threads {k['threads']}")
    cost = (
        'Time and memory of a step: not measured here (`make bench`).'
        if k is None
        else (
            f"Time and memory of a step are relative to plain KD: {k['teacher']} to {k['student']}, batch {k['bs']}, "
            f"{k['dtype']}, {where}, median of {k['pairs']} pairs, {k['date']}"
            + (f"; KD beside itself takes {kd[0]:.2f} to {kd[1]:.2f}." if kd else '.')))
    return '\n\n'.join([_legend, cost])


Cards.note = _note


def _repr(self):
    "The table in plain text, without what is long."
    lines = [f"{'method':30}{'reads':36}{'extra parameters':>17}{'time':>7}{'memory':>8}  free to the student"]
    lines += [
        f"{c['method']:30}{c['reads']:36}{c['extra_params']:>17,}{_price(c['time']):>7}{_price(c['memory']):>8}  "
        f"{c['forgives']}"
        for c in self]
    return '\n'.join(lines)


def _repr_html(self):
    "The table, its links on the web."
    rows = [self.head, *(_row(c, self.site) for c in self)]
    cells = [''.join(f'<{tag}>{_html(v)}</{tag}>' for v in r) for r, tag in zip(rows, ['th'] + ['td'] * len(self))]
    return f"<table>{''.join(f'<tr>{r}</tr>' for r in cells)}</table><p>{_html(self.note())}</p>"


Cards.__repr__, Cards._repr_html_ = _repr, _repr_html


@cache
def _computed():
    "What methods say of themselves."
    extra = extra_params(*_typed)
    return {
        m: dict(reads=_reads(_own(m)), weights=_in_full(m), extra_params=extra[m], forgives=_forgiven(m))
        for m in _typed}


def method_cards(
    bench=None,  # the file that `make bench` wrote; None: no prices
) -> Cards:
    "A card for every method of kdnb: what is known of it, what it says of itself, and what was measured."
    (prices, about), cards = _prices(bench), []
    for m, typed in _typed.items():
        row = prices.get(repr(parse_method(m)), {})
        time, memory = row.get('time', {}), row.get('memory', {})
        cards.append(
            typed
            | _computed()[m]
            | dict(time=time.get('median'), memory=memory.get('median'), spread=time and (time['min'], time['max'])))
    return Cards(cards, about)
