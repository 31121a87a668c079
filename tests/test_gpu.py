"What `make gpu` does, in which order, and that it goes on where it stopped; the GPU itself is not needed."
import json
import sys

import pytest

from bench import gpu
from bench.gpu import METHODS, commands, run_steps
from kdnb.cli.options import make_parser
from kdnb.cli.sweep import asked_commands, sweep_groups

def test_the_steps_in_order_of_worth(tmp_path):
    steps = commands('cuda', tmp_path, 3, ['--root', 'data'])
    assert [*steps] == ['tests', 'bench', 'resnet56-resnet20', 'resnet32x4-resnet8x4']
    for name in [*steps][2:]:
        a = make_parser('kdnb_sweep', '', '', *sweep_groups).parse_args(steps[name][1:])
        words = asked_commands(a)
        assert len(words) == 1 + 3*(1 + len(METHODS)) and all('cuda' in w and 'data' in w for w in words)


def test_what_is_done_is_not_done_again_and_what_failed_is_told(tmp_path, capsys):
    def step(code): return [sys.executable, '-c', f'import sys; sys.exit({code})']
    log = tmp_path/'gpu.json'
    first = run_steps(dict(tests=step(0), bench=step(3), pair=step(0)), log)
    assert first == json.loads(log.read_text())
    assert [how.split(',')[0] for how in first.values()] == ['done', 'exit code 3', 'done']
    capsys.readouterr()
    second = run_steps(dict(tests=step(1), bench=step(0), pair=step(1)), log)
    assert all(how.startswith('done') for how in second.values())
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines()] == ['# bench']


@pytest.mark.parametrize('content', [b'{"tests": "do', b'[]', b'{"tests": 3}', b'\xff', b'[' * 10**5])
def test_a_damaged_log_is_one_sentence(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setenv('KDNB_RUNS', str(tmp_path))
    monkeypatch.setattr(sys, 'argv', ['gpu', '--device', 'cpu'])
    (tmp_path/'gpu-cpu.json').write_bytes(content)
    assert gpu.main() == 1
    told = capsys.readouterr().err
    assert 'gpu-cpu.json is damaged: delete it' in told and told.count('\n') == 1
