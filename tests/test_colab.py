"""In Colab: a cell installs kdnb there and does nothing elsewhere, and nothing of Colab's own is replaced."""
import re
import subprocess

import house
import pytest
from house import CFG, NOTEBOOKS, ROOT, TUTORIALS
from packaging.requirements import Requirement

COLAB = dict(line.split('==') for line in (ROOT/'tests/reference/colab.txt').read_text().splitlines() if line[0] != '#')
FOR_LAB = 'lab', 'dev'          # extras for a machine of your own
EXTRAS = [k.removesuffix('_requirements') for k in CFG if k.endswith('_requirements')]
INSTALLS = {p: house.text(c['source']) for p in (*TUTORIALS, 'nbs/index.ipynb')
            for c in house.code(NOTEBOOKS[p]) if 'pip install' in house.text(c['source'])}

def asked(extra: str) -> list[Requirement]:
    """What kdnb asks for, or an extra of it."""
    return [Requirement(word) for word in CFG[f'{extra}_requirements' if extra else 'requirements'].split()]

@pytest.mark.parametrize('extra', ['', *(e for e in EXTRAS if e not in FOR_LAB)])
def test_nothing_of_colab_is_replaced(extra):
    has = {r.name: COLAB[r.name] for r in asked(extra) if r.name in COLAB}
    assert [str(r) for r in asked(extra) if r.name in has and not r.specifier.contains(has[r.name])] == []
    if not extra: assert len(has) == len(asked(extra)), 'kdnb alone asks for nothing that Colab has not'

def test_the_list_is_read():
    assert [str(r) for r in asked('lab') if not r.specifier.contains(COLAB.get(r.name, '99'))] == ['ipywidgets>=8']

def test_each_notebook_installs_with_an_extra_that_is_for_colab():
    assert sorted(INSTALLS) == sorted([*TUTORIALS, 'nbs/index.ipynb'])
    used = {word for s in INSTALLS.values() for word in re.findall(r'kdnb\[([\w,]+)\]', s)}
    assert used <= {*EXTRAS} - {*FOR_LAB}

def run_in(folder, line: str):
    """Run the line of such a cell as a shell does, with `folder` in place of Colab's /content."""
    command = line.removeprefix('! ').replace('/content', str(folder)).replace('pip install', 'echo pip install')
    return subprocess.run(command.replace('git clone', 'echo git clone'), shell=True, capture_output=True, text=True)

@pytest.mark.parametrize('path', list(INSTALLS))
def test_the_cell_installs_there_and_does_nothing_elsewhere(path, tmp_path):
    line = INSTALLS[path].splitlines()[-1]
    assert line.startswith('! [ -e /content ] && ')
    here, there = run_in(tmp_path/'no', line), run_in(tmp_path, line)
    assert here.stdout + here.stderr == '' and 'pip install' in there.stdout and there.stderr == ''
