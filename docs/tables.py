"""The tables of README: ten methods with the numbers of runs that come with kdnb, and the five systems."""
from collections import Counter
from functools import cache

from kdnb.methods import parse_method

from .cards import typed_card
from .evidence import Evidence, all_evidence, evidence_of, published_of

TEN = 'kd', 'dkd', 'dist', 'fitnet', 'at', 'sp', 'ofd', 'review', 'rkd', 'crd'
PAIR = 'resnet56', 'resnet20'

def _plain_setting(e: Evidence) -> str:
    """A setting without its teacher: two teachers of one kind differ in their seed at most."""
    return ','.join([e.setting.partition(' from ')[0].partition(',')[0], *e.setting.split(',')[1:]])

def _of_the_zoo(means: str) -> list[Evidence]:
    return [e for e in all_evidence() if e.means == means]

@cache
def shown_setting() -> str:
    """The setting in which runs of most of the ten come with kdnb."""
    found = [{_plain_setting(e) for e in _of_the_zoo(repr(parse_method(method)))} for method in TEN]
    return Counter(s for settings in found for s in sorted(settings)).most_common(1)[0][0]

def found_for(means: str) -> Evidence | None:
    """What the runs of the zoo say of a method, with the most seeds; or None."""
    here = [e for e in _of_the_zoo(means) if _plain_setting(e) == shown_setting()]
    return max(here, key=lambda e: e.n, default=None)

def _ours(found: Evidence | None) -> tuple[str, str, str]:
    return (found.last, found.minus_alone, str(found.n)) if found else ('not run yet', '–', '–')

def _on_all_of_cifar(method: str) -> str:
    """What a method gains at the short protocol, on all of CIFAR-100."""
    found = [e for e in evidence_of(method) if 'cifar100, 45,000 images' in e.setting]
    return found[0].minus_alone if found else '–'

def _method_row(method: str) -> str:
    card = typed_card(method)
    claims = [c for c in published_of(method, PAIR)]
    published = f'{claims[0].value:.2f} ({claims[0].source})' if claims else '–'
    last, gain, n = _ours(found_for(repr(parse_method(method))))
    full = _on_all_of_cifar(method)
    return f'| [{card.name}]({card.paper}) | `{method}` | {last} | {gain} | {n} | {full} | {published} |'

def ten_methods() -> str:
    """Ten methods, alone first: what came out, and what others published, which is marked so."""
    alone = found_for('CE(1)')
    last, _, n = _ours(alone)
    rows = [f'| alone | | {last} | | {n} | | 69.06 (RepDistiller) |', *map(_method_row, TEN)]
    heads = ('| method | type | shapes, test % | minus alone | seeds | CIFAR-100, minus alone '
             '| *published*, other nets |\n'
             '|---|---|---:|---:|---:|---:|---:|')
    note = (f'**Here**: {shown_setting()}; and all of CIFAR-100, resnet20 to resnet8, 20 epochs, three seeds. '
            'Weights as published, nothing tuned; the last epoch, mean ± deviation over seeds, the interval of 95 %; '
            "runs that come with kdnb (`load_results('zoo:*').table()`). *Published*, not "
            'ours: CIFAR-100, resnet56 to resnet20, 240 epochs: other nets, not to be compared with ours.')
    return '\n'.join([heads, *rows]) + f'\n\n{note}'

SYSTEMS = (
    ('[ReduceNet](https://github.com/ohmydroid/reducenet)',
     'A net trained with extra branches, which are then cut off, gains by a second training: 92.72 for 91.97 '
     '(CIFAR-10, resnet20). No control was run.',
     'In a short run it was 2.7 points behind a student alone that trained as long '
     '([08](tutorials/08_reducenet.ipynb)).'),
    ('[KD with PyTorch](https://github.com/Youmin-Kim/Knowledge_Distillation)',
     'Seven methods in one code; no table. FitNets stops at its first batch, OFD before it.',
     'All seven train and are tested against their formulas '
     '([01](tutorials/01_kd.ipynb) to [07](tutorials/07_ofd.ipynb)).'),
    ('[Distillation](https://github.com/PkuDavidGuan/Distillation)',
     'OFD is best, 75.41 for wrn-16-2 from wrn-28-4 (CIFAR-100, best epoch on test); AT is mostly below alone.',
     "Not run in full. Its AT is another loss than the paper's ([which](01_systems/05_distillation.ipynb))."),
    ('[JointRD](https://github.com/leoozy/JointRD_Neurips2020)',
     'A plain net learns through the shortcuts of a ResNet, and reaches it on ImageNet at 1.4 times its speed. No '
     'table is in its code.',
     'In a short run of a shallow net the paths through the teacher cost 7.3 and 8.9 points, beside OFD alone '
     '([09](tutorials/09_jointrd.ipynb)).'),
    ('[OD-cheap-convolution](https://github.com/EthanZhangYC/OD-cheap-convolution)',
     'Nets of cheap convolutions that teach each other gain. No table is in its code.',
     'In a short run +.7 points (95 % interval -1.2 to +2.6; [10](tutorials/10_online.ipynb)).'))

def five_systems() -> str:
    """The five systems that kdnb brings under one roof: what each claims, what came out here."""
    rows = [f'| {name} | {claim} | {here} |' for name, claim, here in SYSTEMS]
    return '\n'.join(['| system | claims | here |\n|---|---|---|', *rows])
