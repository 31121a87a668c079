"A scheme is sent to a spawned process, and gives the same losses there."
import copy

import pytest
import torch

from kdnb.all import Distill, resnet

METHOD = 'kd(standardize=True)+at+fitnet+ofd+rkd+dist+wttm+review'


def losses_of(scheme, x, y):
    return {k: v.item() for k, v in scheme.train()(x, y)[0].items()}


def work(scheme, x, y, answers):
    "In a process of its own."
    torch.set_num_threads(1)
    answers.put(losses_of(scheme, x, y))


def test_a_scheme_is_sent_to_a_spawned_process():
    some = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    context = torch.multiprocessing.get_context('spawn')
    scheme, answers = Distill(resnet(8), resnet(14, width=2), METHOD, size=16), context.SimpleQueue()
    expected = losses_of(copy.deepcopy(scheme), *some)
    process = context.Process(target=work, args=(scheme, *some, answers))
    process.start()
    process.join(120)
    assert process.exitcode == 0 and answers.get() == pytest.approx(expected, rel=1e-4)
