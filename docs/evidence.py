"""What runs on disk say of a method, and what others published of it: numbers of README and of the methods' pages."""
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from kdnb.errors import WrongValue
from kdnb.experiments import load_results
from kdnb.methods import parse_method
from kdnb.systems import find_preset

class Evidence(NamedTuple):
    """What came out for one method in one setting; accuracies in percent, the last epoch."""
    setting: str                # net, data, epochs, teacher
    means: str                  # the method in full
    last: str
    minus_alone: str
    n: int
    head: float                 # mean of the last epoch
    gain: float | None

KINDS = 'short', 'shapes', 'minute-few', 'minute-cheap', 'minute-joint', 'minute-reduce', 'minute-headless'

def _mean(value: tuple) -> str:
    mean, std = value
    return f'{mean:.2f}' if std is None else f'{mean:.2f} ± {std:.2f}'

def _difference(found: dict | None) -> str:
    if not found: return '–'
    low, high = found['low'], found['high']
    interval = '' if found['n'] < 2 else f' ({low:+.2f} to {high:+.2f})'
    return f"{found['mean']:+.2f}{interval}"

def _read_line(block: dict, line: dict) -> Evidence:
    of, found = block['of'], line['difference']
    teacher = f" from {of['teacher_model']}" if of['teacher_model'] else ''
    setting = f"{of['student']}{teacher}, {of['data']}, {of['n_train']:,} images, {of['epochs']} epochs"
    return Evidence(setting, line['means'], _mean(line['last']), _difference(found), line['n'],
                    line['last'][0], found['mean'] if found else None)

@cache
def all_evidence() -> list[Evidence]:
    """Each method in each setting of the runs that kdnb keeps."""
    found = []
    for kind in KINDS:
        blocks = load_results(f'zoo:{kind}-*').table().blocks
        found += [_read_line(b, line) for b in blocks for line in b['lines'] if b['base'] and not line['made']]
    return found

def _kind(means: str) -> tuple[str, bool]:
    """The name of a method's term, and whether its logits are standardised; a sum or another scheme has none."""
    try:
        terms = parse_method(means)
    except WrongValue:
        return '', False                    # Online, JointRD
    if len(terms) > 2: return '', False
    return terms[-1].name, 'standardize=True' in means

def evidence_of(method: str) -> list[Evidence]:
    """What came out for a method, with whichever weight."""
    kind = _kind(repr(parse_method(method)))
    plain = [e for e in all_evidence() if _kind(e.means) == kind]
    return [e for e in plain if ('weighted=False' in method) == ('weighted=False' in e.means)]

class Claim(NamedTuple):
    """What one source published for one pair, in percent on CIFAR-100 after 240 epochs."""
    source: str
    rule: str
    pair: str
    alone: float
    kd: float
    value: float

_names = {'kd(9, T=2, standardize=True)': 'kd_ls'}

def published_of(method: str, *pairs: tuple[str, str]) -> Iterator[Claim]:
    """What was published of a method for pairs of nets, beside alone and KD of RepDistiller's table."""
    preset = find_preset('crd')
    first = preset.published[0]
    for source in preset.published:
        scores = source.scores.get(_names.get(method, method), ())
        for i, pair in enumerate(preset.pairs):
            if pair in pairs and i < len(scores) and scores[i] is not None:
                alone, kd = first.scores['alone'][i], first.scores['kd'][i]
                yield Claim(source.source, source.rule, ' to '.join(pair), alone, kd, scores[i])
