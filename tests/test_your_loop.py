"""The tutorial `95_your_loop` in the loops of others, each where its package is installed."""
import house
import pytest

TUTORIAL = house.NOTEBOOKS['nbs/tutorials/95_your_loop.ipynb']
CELLS = {c['id']: house.text(c['source']) for c in house.code(TUTORIAL)}

@pytest.mark.slow
@pytest.mark.parametrize(('name', 'package'), [('lightning', 'lightning'), ('trainer', 'transformers')])
def test_a_loop_of_others(name, package, capsys, tmp_path, monkeypatch):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install {package} accelerate')
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    scope = {}
    for cell in ('imports', 'data', name): exec(CELLS[cell], scope)
    scheme = scope['scheme']
    assert float(capsys.readouterr().out.split()[-1]) > 50                 # percent
    assert not scheme.teacher.model.training and not any(p.requires_grad for p in scheme.teacher.parameters())

def test_each_is_short():
    for name in ('loss', 'method', 'lightning', 'trainer'): assert len(house.code_lines(CELLS[name])) <= 18, name
