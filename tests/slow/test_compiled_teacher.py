"""A compiled teacher answers as the teacher does, and its students learn from it."""
import torch

from kdnb.all import Distill, Learner, load_data, resnet
from kdnb.schemes import Frozen
from kdnb.seeds import seeded
from kdnb.train import Run, faster

def test_a_compiled_teacher(runs, monkeypatch, tmp_path):
    monkeypatch.setenv('KDNB_DATA', str(tmp_path))
    data = load_data('digits', size=8, n_train=100, bs=50, device='cpu')
    with seeded(0): teacher = Frozen(resnet(14), ['stages.1.1.add'])
    x = data.examples(50, 'train')[0]
    ask = faster._try_way(teacher, 'compiled', x, torch.no_grad)
    answers = [faster._answers_of(a, x, torch.no_grad) for a in (teacher.net, ask)]
    assert len(answers[0]) == 2 and faster._largest_difference(*answers) < 1e-4
    monkeypatch.setattr(faster, '_few', 2)
    monkeypatch.setattr(faster, 'choose_way', lambda *a: ('compiled', {}))
    with seeded(1): net = resnet(8)
    Learner(Distill(net, teacher.model, 'kd', size=8), data, amp='off', cbs=None, run='compiled').fit(1)
    assert Run('compiled').json('config.json')['about']['teacher_asked'] == 'compiled'
