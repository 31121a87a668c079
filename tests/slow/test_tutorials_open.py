"""A tutorial opens with the runs of the zoo: Run All trains nothing, writes no run, and takes seconds."""
import os
import subprocess
import sys

import nbformat
import pytest
from house import ROOT

@pytest.mark.parametrize('name', ['00_teacher', '90_grid'])
def test_run_all_trains_nothing(tmp_path, name):
    env = {k: v for k, v in os.environ.items() if k not in ('KDNB_BUDGET', 'MPLBACKEND')}
    env |= dict(KDNB_RUNS=str(tmp_path/'runs'), OMP_NUM_THREADS='1')
    command = [sys.executable, '-m', 'nbconvert', '--to', 'notebook', '--execute', '--output-dir', str(tmp_path)]
    subprocess.run([*command, str(ROOT/f'nbs/tutorials/{name}.ipynb')], env=env, check=True, timeout=300)
    nb = nbformat.read(tmp_path/f'{name}.ipynb', 4)
    told = ''.join(o.get('text', '') for c in nb.cells for o in c.get('outputs', []))
    assert "budget 'zoo'" in told and "run 'zoo:minute-teacher': finished, loaded" in told and 'epoch ' not in told
    assert not list((tmp_path/'runs').glob('*/config.json'))
