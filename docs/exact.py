"""Write docs/exact.md, how far each loss is from its authors' code: `python -m docs.exact`.

The authors' figures are recorded in `tests/reference/`, each made by a run of their files. What kdnb says of the same
inputs is what the tests compute; here it is put into one table.
"""
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import pytest

from kdnb.text import Column, Table

from .links import ROOT

PAGE = ROOT/'docs/exact.md'

# of what was recorded by the name of a repository alone: which file
_ZOO = dict(kd='KD', fitnet='FitNet', at='AT', nst='NST', sp='SP', rkd='RKD', pkt='PKT', vid='VID', cc='CC', ab='AB',
            ft='FT', fsp='FSP', kdsvd='KDSVD')
FILES = {name: f'HobbitLong/RepDistiller/distiller_zoo/{file}.py' for name, file in _ZOO.items()} | dict(
    ickd='ADLab-AutoDrive/ICKD/Cifar100/distiller_zoo/ICKD.py', wkdf='JiamingLv/WKD/mdistiller/distillers/WKD.py',
    srd='roymiles/Simple-Recipe-Distillation/imagenet/torchdistill/losses/single.py',
    cat='GzyAftermath/CAT-KD/mdistiller/distillers/CAT_KD.py',
    sdd='shicaiwei123/SDD-CVPR2024/mdistiller/distillers/SDD_DKD.py', simkd='DefangChen/SimKD/models/util.py',
    ofd='megvii-research/mdistiller/mdistiller/distillers/OFD.py',
    review='megvii-research/mdistiller/mdistiller/distillers/ReviewKD.py',
    ofa='Hao840/OFAKD/distillers/ofa.py', vkd='roymiles/vkd/engine.py')

INTRO = (
    '# As their authors have it\n\nEach loss beside the code of its authors, on the same numbers: ten images or more, '
    'unequal widths, negative values. Their figures were made by running their files (the scripts stand in '
    '[tests/reference](../tests/reference)), never by ours. *value* and *gradient* are relative errors; the gradient '
    "is that at the student's features or logits, and of what is trained beside it where that is recorded. kdnb "
    'computes in float32, where 1e-7 is the last digit; the tests refuse more than 2e-5, and more than 3e-4 for the '
    "gradient of CTKD's temperature, a difference of large numbers. `python -m docs.exact` makes this page.")
BESIDE = (
    'A name with a suffix is the same file with other options, or its next step. What each method reads of its nets is '
    'compared by value, on the thirteen pairs of RepDistiller ([test_reference.py](../tests/test_reference.py)); DOT '
    'is compared by its steps ([test_online_reference.py](../tests/test_online_reference.py)). KDCL has no code of '
    'its authors.')

class Row(NamedTuple):
    """What is compared, the authors' file and commit, and the two errors."""
    name: str
    file: str
    commit: str
    value: float
    gradient: float

def _error(v: float) -> str: return f'{v:.0e}' if v else '0'

def _test_module(name: str) -> ModuleType:
    "A file of tests, which computes what kdnb says."
    sys.path[:0] = [str(ROOT/'tests'), str(ROOT/'tests/reference')]
    return importlib.import_module(name)

def _features() -> Iterator[Row]:
    "Methods on features, and KD."
    for module in map(_test_module, ('test_transfer', 'test_across', 'test_stages_reference')):
        for name in module.CASES:
            file = FILES[name.partition('_')[0]]
            yield Row(name, file, module.FIGURES['commits']['/'.join(file.split('/')[:2])], *module.errors(name))

def _noted(module: ModuleType) -> dict[str, tuple[float, float]]:
    "The errors that the tests of a module compute, by the names of the figures."
    found, errors, names = {}, module.errors, {id(figure): name for name, figure in module.FIGURES.items()}
    def note(loss, read, figure):
        found[names[id(figure)]] = errors(loss, read, figure)
        return found[names[id(figure)]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'errors', note)
        for test in (t for name, t in vars(module).items() if name.startswith('test_') and 'authors' in name
                     or name == 'test_crd_is_repdistillers_with_its_constants_and_rows'):
            words = test.__code__.co_varnames[:test.__code__.co_argcount]
            values = dict(name=[*getattr(module, 'TERMS', ())], j=[1, 2], monkeypatch=[patch])
            for value in values[words[0]] if words else [None]:
                test(*[value][:len(words)])
    return found

def _logits() -> Iterator[Row]:
    "Methods on logits, CRD and students that teach each other."
    for module in map(_test_module, ('test_reference_logits', 'test_online_reference')):
        for name, (value, gradient) in _noted(module).items():
            source = module.SAID['sources'][name.partition('_')[0]]
            owner = source.split('/')[0]
            yield Row(name, source.replace('+', '/', 1), module.SAID['commits'][owner], value, gradient)

def exact_page() -> str:
    """The table, with what stands around it."""
    rows = []
    for row in sorted([*_features(), *_logits()]):
        owner, repository, place = row.file.split('/', 2)
        link = f'[{repository}/{place}](https://github.com/{owner}/{repository}/blob/{row.commit}/{place})'
        rows.append([f'`{row.name}`', link, _error(row.value), _error(row.gradient)])
    columns = ['figure', "authors' file", Column('value', align='right'), Column('gradient', align='right')]
    return f'{INTRO}\n\n{Table(columns, rows).markdown(raw=True)}\n\n{BESIDE}\n'

if __name__ == '__main__':
    PAGE.write_text(exact_page(), encoding='utf-8')
