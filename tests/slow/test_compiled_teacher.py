"""A compiled teacher answers as the teacher does, and its students learn from it."""
import subprocess
import sys

PROGRAM = '''
import torch
from kdnb.all import Distill, Learner, load_data, resnet
from kdnb.schemes import Frozen
from kdnb.seeds import seeded
from kdnb.train import Run, faster

data = load_data('digits', size=8, n_train=100, bs=50, device='cpu')
with seeded(0): teacher = Frozen(resnet(14), ['stages.1.1.add'])
x = data.examples(50, 'train')[0]
ask = faster._try_way(teacher, 'compiled', x, torch.no_grad)
answers = [faster._answers_of(a, x, torch.no_grad) for a in (teacher.net, ask)]
assert len(answers[0]) == 2 and faster._largest_difference(*answers) < 1e-4
faster._few, faster.choose_way = 2, lambda *a: ('compiled', {})
with seeded(1): net = resnet(8)
Learner(Distill(net, teacher.model, 'kd', size=8), data, amp='off', cbs=None, run='compiled').fit(1)
assert Run('compiled').json('config.json')['about']['teacher_asked'] == 'compiled'
print('done')
'''

def test_a_compiled_teacher(runs, monkeypatch, tmp_path):
    """In a process of its own: the compiler leaves threads behind, and other tests fork."""
    monkeypatch.setenv('KDNB_DATA', str(tmp_path))
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith('done\n'), done.stdout + done.stderr
