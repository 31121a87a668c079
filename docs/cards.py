"""The table of methods: a card for each, with its paper, its equation, and what can be computed of it.

A table of methods that is typed by hand is true on the day it is typed. Here only what no program can know is typed:
paper, equation, weak spots, and the cell, tutorial and test to read on. The rest is asked of the method: what it
reads and its weights of its term, the parameters that it brings of a scheme, its price of what `make bench` wrote,
and its invariances of the loss, by trying.

Two students whose features differ by a rotation are one student to a loss that compares distances, and two to a loss
that compares features one by one. So each term is called on random numbers before and after a change. If the
student's side alone may be changed and the loss stays, the change is *free*: the method leaves the student alone
there. If both sides may be changed alike, and not the student's alone, the entry is *both*. `kd_shuffled` draws its
permutations row by row, so what its entry tells is true of each draw, though not on average.

We left out accuracy: a table of what each method gains has a protocol, seeds and an interval, and is made of runs.
"""
import copy
import json
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from bench.methods import BESIDE
from kdnb.methods import CE, Term, parse_method, tap_pairs
from kdnb.models import create_model, num_params
from kdnb.schemes import Distill
from kdnb.seeds import seeded
from kdnb.taps import reading_pair
from kdnb.text import Column, Table, format_number

ROOT = Path(__file__).resolve().parent.parent

# --- what a student may do for free

def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))

def _order(n: int) -> torch.Tensor: return _numbers(n).argsort()
def _turn(n: int) -> torch.Tensor: return torch.linalg.qr(_numbers(n, n))[0]
def _sizes(*shape: int) -> torch.Tensor: return .5 + _numbers(*shape).abs()

FEATURE_CHANGES: dict[str, Callable] = {        # of eight images with six channels of 4 x 4 places
    'rotation': lambda f: (f.flatten(1) @ _turn(f[0].numel())).view_as(f),
    'rotation of channels': lambda f: torch.einsum('bchw,cd->bdhw', f, _turn(f.shape[1])),
    'order of channels': lambda f: f[:, _order(f.shape[1])],
    'signs of channels': lambda f: f * _numbers(f.shape[1], 1, 1).sign(),
    'order of places': lambda f: f.flatten(2)[..., _order(f[0, 0].numel())].view_as(f),
    'scale of each image': lambda f: f * _sizes(len(f), 1, 1, 1),
    'scale of each channel': lambda f: f * _sizes(f.shape[1], 1, 1),
    'scale': lambda f: 7*f,
    'shift': lambda f: f + 5*_numbers(*f.shape[1:]),
    'order of images': lambda f: f[_order(len(f))]}

LOGIT_CHANGES: dict[str, Callable] = {          # of ten classes
    'constant for each image': lambda z: z + 5*_numbers(len(z), 1),
    'scale of each image': lambda z: z * _sizes(len(z), 1),
    'scale': lambda z: 7*z,
    'shift': lambda z: z + 5*_numbers(z.shape[1]),
    'order of classes': lambda z: z[:, _order(z.shape[1])],
    'order of images': lambda z: z[_order(len(z))]}

LABEL_CHANGES: dict[str, Callable] = {          # where images or classes change places on both sides, so do the labels
    'order of images': lambda y, classes: y[_order(len(y))],
    'order of classes': lambda y, classes: _order(classes).argsort()[y]}

# what a term compares where that is more than a feature of each: what its adapters make of it, or several places
BEHIND: dict[str, Callable] = {
    'vid': lambda s, t: ([(s, torch.ones(s.shape[1]))], [t]),
    'cc': lambda s, t: ([torch.stack([s, t], 1)], [t]),
    'ft': lambda s, t: ([(s, t, 0.)], [t]),
    'srd': lambda s, t: ([torch.stack([s.flatten(1), t.flatten(1)], 1)], [t]),
    **dict.fromkeys(['cat', 'sdd'], lambda s, t: ([(s, t)], [t])),
    'ofa': lambda s, t: ([s.mean((2, 3))], [t.mean((2, 3))]),       # what an exit says of six classes
    'vkd': lambda s, t: ([s.mean((2, 3))], [t]),
    'fsp': lambda s, t: ([s, s], [t, t]),
    'kdsvd': lambda s, t: ([s, s], [t, t])}

def own_term(method: str | Term) -> Term:
    "A copy of the term that a method is named after; the labels stand before it."
    return copy.copy(parse_method(method)[-1])

def given_beside(term: Term, s: torch.Tensor, t: torch.Tensor) -> dict[str, Any]:
    "What a term is given beside both sides and the labels: adapters of a seed, numbers of the images, the same view."
    there = dict(index=torch.arange(len(s)), view=(s, t))
    beside = {name: there[name] for name in term.asks}
    if term.taps is None:
        with seeded(0):
            term.prepare(torch.nn.Linear(6, s.shape[1]), [])
    if not term.with_adapters: return beside
    with seeded(0):
        adapters = term.connect(*([], []) if term.taps is None else ([s], [t]))
    term.meet(adapters, SimpleNamespace(train=SimpleNamespace(y=torch.arange(len(s)))))
    return beside | dict(adapters=adapters and adapters.eval())

def term_value(term: Term, s: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> float:
    "A loss as a scheme calls it; OFD's margins are measured, and what is drawn at random is drawn alike each time."
    if hasattr(term, 'margins'):
        term.margins = [None]
        term.measure([t])
    y = y % s.shape[1]                              # maps of classes have six
    fs, ft = BEHIND.get(term.name, lambda s, t: ([s], [t]))(s, t)
    beside = given_beside(term, s, t)
    with seeded(0):
        loss = term(s, t, y, **beside) if term.taps is None else term(fs, ft, y, **beside)
    return loss.item()

def example_for(term: Term) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Callable]]:
    "What a term reads of student and teacher for eight images, the labels, and the changes to try."
    shape = (8, 10) if term.taps is None else (8, 6, 4, 4)
    s, t = _numbers(2, *shape)
    return s, t, torch.arange(8), LOGIT_CHANGES if term.taps is None else FEATURE_CHANGES

def invariances(method: str | Term) -> dict[str, str]:
    "{change: 'free' to the student alone, 'both' sides alike, or ''}: what leaves a method's loss as it was."
    term = own_term(method)
    s, t, y, changes = example_for(term)
    before = term_value(term, s, t, y)

    def same(s: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> bool:
        return abs(term_value(term, s, t, y) - before) < 1e-4*abs(before)

    def kind(name: str, change: Callable) -> str:
        moved = LABEL_CHANGES[name](y, s.shape[1]) if name in LABEL_CHANGES else y
        if same(change(s), t, y): return 'free'
        return 'both' if same(change(s), change(t), moved) else ''

    return {name: kind(name, change) for name, change in changes.items()}

IMPLIED = {                                     # a student that may rotate may permute
    'rotation of channels': ('order of channels', 'signs of channels'),
    'scale of each image': ('scale',),
    'scale of each channel': ('scale',),
    'rotation': ('rotation of channels', 'order of channels', 'signs of channels', 'order of places')}

def forgiven(method: str | Term) -> str:
    "The free changes in words, without those that follow from others."
    free = [name for name, kind in invariances(method).items() if kind == 'free']
    follow = {name for more in free for name in IMPLIED.get(more, ())}
    return ', '.join(name for name in free if name not in follow) or 'nothing'

# --- what a method tells of itself

def _place_words(place: int | str) -> str:
    known = {-1: 'last stage', 'stages': 'all stages'}
    return known.get(place, f'stage {place}' if isinstance(place, int) else place)

def read_places(term: Term) -> str:
    "What a term compares, in words: places, labels, reading, and whether across the batch."
    s, t, y, _ = example_for(term)
    places = ', '.join(_place_words(a) for a, _ in tap_pairs(term.taps))
    words = [] if isinstance(term, CE) else [places or 'logits']
    if term_value(term, s, t, y) != term_value(term, s, t, y.roll(1)):
        words.append('labels')
    words += [dict(index='numbers of the images', view='a second view')[name] for name in term.asks]
    texts = dict(post='after the activation', pre='before the activation', sum='raw sums')
    ours, theirs = (texts[word] for word in reading_pair(term.reading))
    same = '' if term.reading == 'post' else f', {ours}'
    reading = same if ours == theirs else f", {ours} and the teacher's {theirs}"
    return ' and '.join(words) + (reading if places else '') + (', across the batch' if term.batchwise else '')

def in_full(method: str) -> str:
    "The method with every weight, as you may type it; a twelfth of the run is shorter as a fraction."
    def fraction(m: re.Match) -> str: return str(Fraction(m[0]).limit_denominator(1000))
    return re.sub(r'0\.\d{7,}', fraction, repr(parse_method(method)))

def extra_params(*methods: str, teacher: str = 'resnet56', student: str = 'resnet20',
                 num_classes: int = 100) -> dict[str, int]:
    "{method: parameters that it trains beside the student}, all built as one sum: the nets are looked through once."
    terms = {method: own_term(method) for method in methods}
    reading = {method: term for method, term in terms.items() if term.taps is not None or term.with_adapters}
    with seeded(0):
        net = create_model(student, num_classes)
    with seeded(1):
        scheme = Distill(net, create_model(teacher, num_classes), [CE(), *reading.values()], size=32)
    adapters = {m: scheme.adapters[n] for m, n in zip(reading, scheme.names[1:], strict=True) if n in scheme.adapters}
    return {method: num_params(adapters[method]) if method in adapters else 0 for method in methods}

# --- what is typed

class Typed(NamedTuple):
    """What no program can know of a method; equations use no underscore, bar or star, which Markdown would take."""
    method: str
    name: str
    by: str
    arxiv: str              # its number, or the address of a paper that has none
    equation: str           # s, t: what is read of student and teacher, behind the adapter
    fails: str              # what the loss's formula, its errors, or a published table bears out
    cell: str               # id of the cell with its loss
    tutorial: str
    test: str

    @property
    def paper(self) -> str:
        """The address of the paper."""
        return f'https://arxiv.org/abs/{self.arxiv}' if '/' not in self.arxiv else f'https://{self.arxiv}'

_typed = (
    # what the teacher tells
    Typed(
        'kd', 'KD', 'Hinton et al. 2015', '1503.02531',
        r'$T^2 \mathrm{KL}(\sigma(t/T) \Vert \sigma(s/T))$',
        'a teacher of other classes; a better teacher may teach no better '
        '([resnet20](https://arxiv.org/abs/1910.10699): 70.66 from resnet56, 70.67 from resnet110)',
        'kd-loss', '01_kd', 'test_a_net_without_stages_teaches_by_what_it_says_and_errors_say_so'),
    Typed(
        'kd(9, T=2, standardize=True)', 'standardised KD', 'Sun et al. 2024', '2403.01427',
        r'KD of $z(s), z(t)$ with $z(x) = (x - \mathrm{mean}\ x) / \mathrm{std}\ x$',
        'how sure the teacher is of an image is lost; weight and T vary with the pair',
        'standardize-logits', '11_modern', 'test_a_step_of_every_card'),
    Typed(
        'dkd', 'DKD', 'Zhao et al. 2022', '2203.08679',
        r'$T^2 (\alpha \mathrm{KL}(b(t) \Vert b(s)) + \beta \mathrm{KL}(q(t) \Vert q(s)))$; $b$: label or not, '
        '$q$: which other',
        'beta varies with the pair (2 to 8)',
        'dkd-loss', '11_modern', 'test_two_ranks_learn_what_one_process_learns'),
    Typed(
        'dist', 'DIST', 'Huang et al. 2022', '2205.10536',
        r'$T^2 (\beta (1 - \rho) + \gamma (1 - \rho^\top))$; $\rho$: correlation of $\sigma(s/T), \sigma(t/T)$ in '
        r'rows, $\rho^\top$: in columns',
        'small batches: a class is compared across their images',
        'dist-loss', '11_modern', 'test_without_gathering_it_is_another_loss'),
    Typed(
        'wttm', 'WTTM', 'Zheng & Yang 2024', '2402.11148',
        r'$U \mathrm{KL}(\sigma(t/T) \Vert \sigma(s))$, $U = \sum \sigma(t)^{1/T}$',
        'images of which the teacher is sure count least; the weight varies with the pair',
        'wttm-loss', '11_modern', 'test_all_methods_at_once_between_nets_of_different_kinds'),
    Typed(
        'wttm(45, T=10, weighted=False)', 'TTM', 'Zheng & Yang 2024', '2402.11148',
        r'$\mathrm{KL}(\sigma(t/T) \Vert \sigma(s))$',
        'the weight varies with the pair',
        'wttm-loss', '11_modern', 'test_a_loss_on_logits_is_its_authors'),
    Typed(
        'bkd', 'BKD', 'Yang et al. 2023', '2308.06453',
        r'$T^2 \sum \mathrm{KL}(\varsigma(t/T) \Vert \varsigma(s/T))$; $\varsigma$: sigmoid, yes or no of each class',
        'classes that are rare: a teacher that says no to all of them is nearly right',
        'bkd-loss', '93_your_data', 'test_a_loss_on_logits_is_its_authors'),
    Typed(
        'nkd', 'NKD', 'Yang et al. 2023', '2303.13005',
        r'$-\sigma(t)(y) \ln \sigma(s)(y) - \gamma T^2 \sum q(t) \ln q(s)$; $q$: which other',
        'a teacher that is wrong of an image leaves its label out',
        'nkd-loss', '11_modern', 'test_a_loss_on_logits_is_its_authors'),
    Typed(
        'rld', 'RLD', 'Sun et al. 2024', '2408.07703',
        r'$\alpha \mathrm{KL}(b(\max t) \Vert b(s)) + \beta T^2 \mathrm{KL}$ of the classes below the label; '
        '$b$: label or not',
        'images of which the teacher ranks the label low: little is left to rank',
        'rld-loss', '11_modern', 'test_a_loss_on_logits_is_its_authors'),
    Typed(
        'wkd', 'WKD-L', 'Lv et al. 2024', '2412.08139',
        r'$-\sigma(t)(y) \ln \sigma(s)(y) + \gamma W(q(s), q(t))$; $W$: cost of moving, $q$: which other',
        'a teacher without a linear classifier; thousands of classes (a plan of classes by classes for each image)',
        'wasserstein-loss', '11_modern', 'test_a_loss_on_logits_is_its_authors'),
    Typed(
        'ctkd', 'CTKD', 'Li et al. 2023', '2211.16231',
        r'KD at $T = 1 + 20 \sigma(\theta)$; $\theta$ goes up the gradient',
        'the gain over KD is small in its tables (resnet56 to resnet20: 71.19 and 70.66)',
        'kd-at-loss', '11_modern', 'test_the_learnt_temperature_goes_up_the_gradient_as_what_its_authors_run'),
    Typed(
        'mlkd', 'MLKD', 'Jin et al. 2023',
        'openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html',
        r'KD at $T$ = 2, 3, 4, 5, 6 $+ \Vert P^\top P - Q^\top Q \Vert^2/C + \Vert P P^\top - Q Q^\top \Vert^2/B$',
        'two passes of both models a step; its tables are of 480 epochs with RandAugment',
        'mlkd-loss', '11_modern', 'test_mlkd_is_its_authors_on_both_views'),
    Typed(
        'hard', 'hard labels', 'Touvron et al. 2021', '2012.12877',
        r'$\mathrm{CE}(s, \mathrm{argmax}\ t)$',
        "the teacher's dark knowledge is not read",
        'hard-loss', '11_modern', 'test_a_loss_on_logits_is_its_authors'),
    # what it looks at
    Typed(
        'fitnet', 'FitNets', 'Romero et al. 2015', '1412.6550',
        r'$\mathrm{mean} (r(s) - t)^2$; $r$: the regressor',
        'features that are no maps; some unlike nets (64.14 †)',
        'hint-loss', '02_fitnets', 'test_methods_that_never_ran_take_a_step'),
    Typed(
        'at', 'AT', 'Zagoruyko & Komodakis 2017', '1612.03928',
        r'$\mathrm{mean} (a(s) - a(t))^2$; $a(f)$: $\sum f^2$ over channels, length 1',
        'maps of one pixel; some unlike nets (59.40 †)',
        'at-loss', '03_at', 'test_tokens_can_be_named_by_hand_where_a_loss_takes_any_shape'),
    Typed(
        'nst', 'NST', 'Huang & Wang 2017', '1707.01219',
        r'$\mathrm{MMD}^2$ of channels, $k(x, y) = (x^\top y)^2$',
        'how loud a channel is is lost; some unlike nets (58.16 †)',
        'nst-loss', '04_nst', 'test_two_ranks_learn_what_one_process_learns'),
    Typed(
        'ofd', 'OFD', 'Heo et al. 2019', '1904.01866',
        r'$\sum (c(s) - m)^2$ where $c(s) \gt m$ or $t \gt 0$; $m = \max(t, \mathrm{margin})$, $c$: the connector',
        "no activation behind the tap; another pair's weight ([issue "
        "13](https://github.com/clovaai/overhaul-distillation/issues/13): below alone)",
        'ofd-loss', '07_ofd', 'test_margins_are_those_of_the_batchnorm_in_front_of_the_activation'),
    Typed(
        'review', 'ReviewKD', 'Chen et al. 2021', '2104.09044',
        r'$\sum 2^{-n} \mathrm{mean} (o(s) - o(t))^2$; $o$: outline $n$, $s$ fused with deeper stages',
        "another pair's rate, batch and weight ([issue "
        "39](https://github.com/megvii-research/mdistiller/issues/39): 63.5 to 69.9)",
        'review-loss', '11b_newer', 'test_methods_that_never_ran_take_a_step'),
    Typed(
        'vid', 'VID', 'Ahn et al. 2019', '1904.05835',
        r'$\mathrm{mean} ((\mu(s) - t)^2 / v + \ln v) / 2$; $\mu$: the guess, $v$: its variance, both learnt',
        'unlike nets (70.30 from resnet50 to vgg8, alone 70.36)',
        'vid-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'ab', 'AB', 'Heo et al. 2019', '1811.03233',
        r'$\sum (1 - c(s))^2$ where $t \gt 0$, $\sum (1 + c(s))^2$ elsewhere, each above 0; $c$: the connector',
        'how strong a neuron is is lost; beside the labels it is another method than its two stages',
        'ab-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'ft', 'FT', 'Kim et al. 2018', '1802.04977',
        r'$\mathrm{mean} \vert a(p(s)) - a(q(t)) \vert$; $p$: translator, $q$: paraphraser, $a$ of AT',
        'the paraphraser learns beside the student; some unlike nets (61.78 †)',
        'ft-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'fsp', 'FSP', 'Yim et al. 2017',
        'openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html',
        r'$\sum \mathrm{mean} (G(s) - G(t))^2$; $G$: channels of a place by those of the next',
        'other widths, where its table has gaps; below alone on wrn-40-2 to wrn-16-2 (72.91, alone 73.26)',
        'fsp-fn', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'kdsvd', 'KDSVD', 'Lee et al. 2018', '1807.06819',
        r'$\sum (R(s) - R(t))^2$; $R$: a Gaussian kernel of the first singular vectors of two places',
        'a decomposition for each image and place: slow; not in the table of its code',
        'kdsvd-fn', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'ickd', 'ICKD', 'Liu et al. 2021', '2202.03680',
        r'$\sum (g(s) - g(t))^2 / C$; $g(f)$: $f f^\top$ of the channels of an image, rows of length 1',
        'where a channel is strong is lost; wide last stages: C x C numbers an image',
        'ickd-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'wkdf', 'WKD-F', 'Lv et al. 2024', '2412.08139',
        r'$\sum r (\mu(s) - \mu(t))^2 + (\sigma(s) - \sigma(t))^2$ of each channel over its places',
        'weight, ratio and grid vary with the pair; where a channel is strong is lost within a cell',
        'wkdf-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'cat', 'CAT-KD', 'Guo et al. 2023', '2304.14777',
        r'$\mathrm{mean} (\mathrm{pool}(W f(s)) - \mathrm{pool}(W f(t)))^2$, each map of length 1; $W$: the classifier',
        'heads that are no linear layer on the mean of the last stage; weight varies with the pair (.7 to 600)',
        'cat-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'sdd', 'SDD', 'Wei et al. 2024', '2403.13512',
        r'DKD of the logits of 1, 4 and 16 regions; a region that contradicts the whole image counts twice',
        'heads that are no linear layer on the mean of the last stage',
        'sdd-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'ofa', 'OFA', 'Hao et al. 2023', '2310.19444',
        r'$-((1 + p(y))^\gamma - 1) \ln q(y) - \sum p(c)^\gamma \ln q(c)$ of each stage, by exits, and of the student',
        r'many parameters beside the student; the best $\gamma$ varies with the pair (1 to 1.5 in its commands)',
        'ofa-loss', '11b_newer', 'test_every_method_takes_ten_falling_steps_on_pairs_of_kinds'),
    Typed(
        'vkd', 'VkD', 'Miles et al. 2024', '2403.06213',
        r'$\mathrm{smooth}\ L1(P s, n(t))$; $P$: orthonormal, $n$: normalised, each image by itself',
        'a teacher that is narrower: what does not fit is lost; its code for transformers has a second head with KD',
        'vkd-loss', '11b_newer', 'test_every_method_takes_ten_falling_steps_on_pairs_of_kinds'),
    # how it relates images
    Typed(
        'cc', 'CC', 'Peng et al. 2019', '1904.01802',
        r'$\mathrm{mean}\ \delta^\top \delta\prime$; $\delta = \vert e(s) - e(t) \vert$ of an image, '
        r'$\delta\prime$ of the next, $e$: a layer each',
        'the teacher has a layer that learns: the loss alone is least where both give zero',
        'cc-loss', '11b_newer', 'test_ten_steps_fall'),
    Typed(
        'sp', 'SP', 'Tung & Mori 2019', '1907.09682',
        r'$\mathrm{mean} (g(s) - g(t))^2$; $g(f)$: $f f^\top$, rows of length 1',
        'batches too small to hold images that are alike',
        'sp-loss', '06_sp', 'test_without_gathering_it_is_another_loss'),
    Typed(
        'rkd', 'RKD', 'Park et al. 2019', '1904.05068',
        r'$\lambda \ell(d(s), d(t)) + \mu \ell(\angle s, \angle t)$; $d$: distances / their mean, $\ell$: Huber',
        'batches of two have no angle; scale is lost ([resnet32x4 to '
        'resnet8x4](https://arxiv.org/abs/1910.10699): 71.90, alone 72.50)',
        'rkd-distance-loss', '05_rkd', 'test_without_gathering_it_is_another_loss'),
    Typed(
        'pkt', 'PKT', 'Passalis & Tefas 2018', '1803.10837',
        r'$\mathrm{mean}\ p(t) \ln(p(t)/p(s))$; $p \propto 1 + \cos$ of two images',
        'small batches: neighbours are looked for within them',
        'pkt-loss', '11b_newer', 'test_without_gathering_it_is_another_loss'),
    # how it tells images apart
    Typed(
        'crd', 'CRD', 'Tian et al. 2020', '1910.10699',
        r'$\ell(u(s), v(t)) + \ell(v(t), u(s))$, $\ell = -\ln h(i) - \sum \ln(1 - h(j))$, $h = p/(p + K/n)$, '
        r'$p \propto e^{u^\top v/\tau}$; $u$, $v$: projections',
        'images without numbers in train; the bank grows with their number (51 MB for 50,000)',
        'crd-loss', '11b_newer', 'test_crd_is_repdistillers_with_its_constants_and_rows'),
    Typed(
        'srd', 'SRD', 'Miles & Mikolajczyk 2023', '2303.11098',
        r'$\ln \sum (p(s) - n(t))^4$; $p$: projected and normalised over the batch, $n$: normalised',
        'batches of one, which have no spread',
        'srd-loss', '11b_newer', 'test_ten_steps_fall'),
    # controls, which are there to fail
    Typed(
        'ls', 'label smoothing', 'Szegedy et al. 2016', '1512.00567',
        r'$\mathrm{CE}(s, (1 - \epsilon) y + \epsilon/C)$',
        'control: soft targets that know no class from another',
        'ce-loss', '11b_newer', 'test_a_step_of_every_card'),
    Typed(
        'kd_shuffled', 'shuffled KD', 'Furlanello et al. 2018', '1805.04770',
        r'KD of $\pi(t)$; $\pi$: the other classes permuted',
        "control: the teacher's softness without its knowledge",
        'shuffle-rest', '11b_newer', 'test_shuffling_is_the_same_for_the_same_seed_and_leaves_the_rest_alone'),
    Typed(
        'self', 'self', 'Furlanello et al. 2018', '1805.04770',
        'KD; $t$: a twin of another seed',
        'control: a teacher no better than the student',
        'kd-loss', '11b_newer', 'test_self_needs_a_twin'))

def typed_card(method: str) -> Typed:
    "What is typed of a method."
    return next(typed for typed in _typed if typed.method == method)

def find_cell(cell: str) -> str:
    "'nbs/07_losses/01_logit.ipynb#kd-loss', of a cell's id."
    for path in sorted(ROOT.glob('nbs/07_losses/*.ipynb')):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        if any(c['id'] == cell for c in cells): return f'{path.relative_to(ROOT).as_posix()}#{cell}'
    raise ValueError(f'no notebook of the losses has a cell {cell}')

def find_test(name: str) -> str:
    "'tests/test_methods.py#test_self_needs_a_twin', of a test's name."
    for path in sorted(ROOT.glob('tests/**/test_*.py')):
        if f'\ndef {name}(' in path.read_text(encoding='utf-8'): return f'{path.relative_to(ROOT).as_posix()}#{name}'
    raise ValueError(f'no test is called {name}')

def _typed_entries(typed: Typed) -> dict[str, str]:
    "What is typed, with the places found."
    return dict(
        method=typed.method, name=typed.name, by=typed.by, paper=typed.paper,
        equation=typed.equation, fails=typed.fails, cell=find_cell(typed.cell),
        tutorial=f'nbs/tutorials/{typed.tutorial}.ipynb', test=find_test(typed.test))

# --- the table

_legend = (
    r'$s$, $t$: what is read of student and teacher, behind the adapter; $\sigma$: softmax. Extra parameters: resnet56 '
    'to resnet20, 100 classes; trained beside the student, and thrown away. '
    'Free to the student: what it may do to what is read without changing the loss, found by trying. '
    '†: vgg13 to MobileNetV2, where the student alone has 64.60 and KD 67.37 '
    '([Tian et al.](https://arxiv.org/abs/1910.10699)).')

def _card_cells(card: dict, base: str) -> list:
    "A card as the cells of a Markdown table; a cell's link opens JupyterLab there, and GitHub at its notebook."
    places = dict(cell=card['cell'].replace('#', '#cell-id='), tutorial=card['tutorial'], test=card['test'])
    prices = f"{format_number('.2f', card['time'])}, {format_number('.2f', card['memory'])}"
    return [
        f"[{card['name']}]({card['paper']}), {card['by']}: `{card['method']}`", card['equation'], card['reads'],
        f"`{card['weights']}`", card['extra_params'], prices, card['forgives'], card['fails'],
        ', '.join(f'[{name}]({base}{place})' for name, place in places.items())]

def _html_cell(text: str) -> str:
    "Links and code of a Markdown cell as HTML."
    text = re.sub(r'`([^`]*)`', r'<code>\1</code>', escape(text, quote=False))
    return re.sub(r'\[([^]]*)\]\(([^)]*)\)', r'<a href="\2">\1</a>', text)

class Cards(list):
    """Cards of methods, a dict each, shown as a table; `.about` tells of what, on what and when the prices are."""
    columns = ('method', 'loss', 'reads', 'in full', Column('extra parameters', ','),
               Column('time, memory', align='left'), 'free to the student', 'weak spots', 'see')
    site = 'https://github.com/kdnb/kdnb/blob/main/'

    def __init__(self, cards: Iterable[dict] = (), about: dict | None = None):
        super().__init__(cards)
        self.about = about

    def markdown(self, base: str = '') -> str:
        "A Markdown table, and where its numbers are from; `base`: the way from where it is shown to the repository."
        return f'{Table(self.columns, [_card_cells(c, base) for c in self]).markdown(raw=True)}\n\n{self.note()}'

    def note(self) -> str:
        "Where the numbers are from."
        about = self.about
        if about is None: return f'{_legend}\n\nTime and memory of a step: not measured here (`make bench`).'
        device = about['device']
        where = device if device.endswith('threads') else f"{device}, threads {about['threads']}"
        cost = (f"Time and memory of a step are relative to plain KD: {about['teacher']} to {about['student']}, batch "
                f"{about['bs']}, {about['dtype']}, {where}, median of {about['pairs']} pairs, {about['date']}")
        former = ' ReviewKD was timed before it had its fourth level.' if about['date'] < '2026-11-30' else ''
        return f'{_legend}\n\n{cost}{self.noise()}.{former}'

    def noise(self) -> str:
        "What the machine's noise does to a ratio: the spread of KD beside KD."
        for card in self:
            if card['method'] == 'kd' and card['spread']:
                return '; KD beside itself takes {:.2f} to {:.2f}'.format(*card['spread'])
        return ''

    def __repr__(self) -> str:
        columns = ['method', 'reads', Column('extra parameters', ','), Column('time', '.2f'), Column('memory', '.2f'),
                   'free to the student']
        keys = 'method', 'reads', 'extra_params', 'time', 'memory', 'forgives'
        return Table(columns, [[card[key] for key in keys] for card in self]).text()

    def _repr_html_(self) -> str:
        heads = ''.join(f'<th>{getattr(c, "name", c)}</th>' for c in self.columns)
        rows = [[_html_cell(f'{v:,}' if isinstance(v, int) else v) for v in _card_cells(c, self.site)] for c in self]
        body = ''.join(f"<tr>{''.join(f'<td>{v}</td>' for v in row)}</tr>" for row in rows)
        return f'<table><tr>{heads}</tr>{body}</table><p>{_html_cell(self.note())}</p>'

# --- all cards

def read_rows(bench: str | Path) -> tuple[list[dict], dict]:
    "(rows, about) of the methods in a file of `make bench`."
    try:
        found = json.loads(Path(bench).read_text(encoding='utf-8'))
        found = found.get('methods', found)
        return found['rows'], found['about']
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f'{bench} is not what `make bench` writes: make it again') from None
    except OSError as e:
        raise OSError(f'{bench} cannot be read ({e.strerror}): write it with make bench, or give bench=None') from None

def read_prices(bench: str | Path | None) -> tuple[dict[str, dict], dict | None]:
    "({method in full: row}, about) of a file of `make bench`."
    if bench is None: return {}, None
    rows, about = read_rows(bench)
    own = [row for row in rows if row['method'] not in ('alone', *BESIDE)]
    return {repr(parse_method(row['method'])): row for row in own}, about

@cache
def _computed_entries() -> dict[str, dict]:
    "What methods tell of themselves."
    extra = extra_params(*(typed.method for typed in _typed))
    return {method: dict(reads=read_places(own_term(method)), weights=in_full(method), extra_params=n,
                         forgives=forgiven(method)) for method, n in extra.items()}

def method_cards(bench: str | Path | None = None) -> Cards:
    "A card for every method of kdnb; `bench`: the file that `make bench` wrote, None for no prices."
    prices, about = read_prices(bench)
    cards = Cards(about=about)
    for typed in _typed:
        row = prices.get(repr(parse_method(typed.method)), {})
        time, memory = row.get('time', {}), row.get('memory', {})
        spread = (time['min'], time['max']) if time else None
        measured = dict(time=time.get('median'), memory=memory.get('median'), spread=spread)
        cards.append(_typed_entries(typed) | _computed_entries()[typed.method] | measured)
    return cards
