"The page of relative errors has each figure that was recorded of an authors' file, and none is large."
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT/'tests/reference'


def recorded() -> set[str]:
    "The names of all figures that have a value and a gradient."
    losses = [json.loads((KEPT/f'{name}.json').read_text())['losses'] for name in ('transfer', 'across', 'stages')]
    figures = [json.loads((KEPT/f'{name}.json').read_text())['figures'] for name in ('logits', 'online')]
    return {name for named in losses + figures for name in named} - {'dot'}


def test_the_page_has_all_figures_and_none_is_far():
    page = (ROOT/'docs/exact.md').read_text(encoding='utf-8')
    rows = dict(re.findall(r'^\| `(\w+)` \| (.*) \|$', page, re.M))
    assert set(rows) == recorded()
    for name, row in rows.items():
        link, value, gradient = row.split(' | ')
        assert re.search(r'/blob/[0-9a-f]{40}/\S+\.py\)$', link), name
        assert float(value) <= 1e-5 and float(gradient) <= (3e-4 if name == 'ctkd' else 2e-5), name
