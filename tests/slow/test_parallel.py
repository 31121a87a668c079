"Two processes that share a batch learn what one process learns from the whole of it, whatever the loss looks at."

import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdnb.losses import sp_loss
from kdnb.methods import Term
from kdnb.models import resnet
from kdnb.parallel import gather, rank, world_size
from kdnb.schemes import Distill
from kdnb.seeds import seeded

ROOT, RANKS = Path(__file__).resolve().parents[2], 2

# --- what both a single process and a rank compute


def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 16, 16, generator=g), torch.randint(10, (16,), generator=g)


def own(v): return v.chunk(world_size())[rank()]


def user_term(s, t): return sp_loss(s, t)


def conv1x1(s, t): return nn.Conv2d(s.shape[1], t.shape[1], 1)


METHODS = {
    m: m
    for m in ('sp', 'rkd', 'pkt', 'dist', 'kd', 'at', 'nst', 'ofd', 'fitnet', 'dkd', 'kd+sp+rkd', 'sp(taps=[1, 3])')}
METHODS |= {
    'a term of the user': Term(user_term, 100, batchwise=True),
    'with adapters': Term(user_term, 100, taps=[2, 3], adapt=conv1x1, batchwise=True)}
GATHERED = {'sp', 'rkd', 'pkt', 'dist', 'user_term'}  # the others are means over images: each rank has its own


def net(depth, width=1):
    "With statistics as of a trained one: a new net's are all alike."
    model = resnet(depth, width=width)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for v, low, high in (
                (m.running_mean, -0.2, 0.2),
                (m.running_var, 0.5, 2),
                (m.weight, 0.5, 1.5),
                (m.bias, -0.3, 0.1)):
                nn.init.uniform_(v, low, high)
    return model


def scheme(method):
    with seeded(0):
        d = Distill(net(8), net(14, 2), method, size=16)
    d.begin_epoch(3, 10)
    return d.eval()  # BatchNorm frozen: its statistics are another matter


def flat(net): return torch.cat([p.grad.flatten() for p in net.parameters()])


def learned(method):
    "The losses, and the gradient as DDP has it: the mean over ranks."
    d, (x, y) = scheme(method), batch()
    losses, _ = d(own(x), own(y))
    sum(losses.values()).backward()
    g = flat(d)
    if world_size() > 1:
        dist.all_reduce(g)
        g /= world_size()
    return {k: v.item() for k, v in losses.items()}, g


def steps(mode, n=3, method='kd+sp'):
    "The weights after n steps in real DDP (in a process of its own: without)."
    d, (x, y) = scheme(method), batch()
    model = DistributedDataParallel(d) if world_size() > 1 else d
    model.train(mode)
    opt = torch.optim.SGD(d.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(n):
        losses, _ = model(own(x), own(y))
        sum(losses.values()).backward()
        opt.step()
        opt.zero_grad()
    return torch.cat([p.detach().flatten() for p in d.student.parameters()])


def half(method='sp'):
    "In bfloat16 and channels_last."
    d, (x, y) = scheme(method).to(memory_format=torch.channels_last), batch()
    with torch.autocast('cpu', torch.bfloat16):
        losses, _ = d(own(x).contiguous(memory_format=torch.channels_last), own(y))
    sum(losses.values()).backward()
    return (
        losses[method].item(),
        losses[method].dtype,
        all(p.grad is not None and p.grad.isfinite().all() for p in d.parameters()))


# --- what only a rank can tell


def tensors():
    "gather on tensors of all sorts: [(what it gave, what it should have given)]."
    def f(r): return torch.arange(48.0).reshape(2, 3, 2, 4) + 100 * r

    sorts = dict(
        plain=lambda v: v,
        strided=lambda v: v[:, ::2].mT,
        last=lambda v: v.contiguous(memory_format=torch.channels_last),
        bf16=lambda v: v.bfloat16(),
        half=lambda v: v.half(),
        double=lambda v: v.double(),
        long=lambda v: v.long(),
        bool=lambda v: v > 60,
        labels=lambda v: v.long()[:, 0, 0, 0])
    return {k: (gather(sort(f(rank()))), torch.cat([sort(f(r)) for r in range(RANKS)])) for k, sort in sorts.items()}


def gradients():
    "A loss that differs from rank to rank, through tensors of several kinds: the gradient at each."
    out = {}
    for k, dtype in dict(float=torch.float32, bf16=torch.bfloat16, double=torch.float64).items():
        z = torch.ones(2, 3, 4, 4, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        weights = torch.arange(4.0, dtype=dtype)[:, None, None, None]  # one for each of the four images
        ((rank() + 1) * weights * gather(z)).sum().backward()
        out[k] = z.grad
    return out


def silent():
    "The collectives that a backward pass starts where only the teacher's features were gathered."
    z, calls, real = torch.ones(2, 2, requires_grad=True), [], dist.all_reduce
    dist.all_reduce = lambda *a, **kw: calls.append(a) or real(*a, **kw)
    try:
        (gather(torch.ones(2, 2)).sum() * z).sum().backward()
        without = len(calls)
        gather(z).sum().backward()
        return without, len(calls)
    finally:
        dist.all_reduce = real


def unequal():
    try:
        gather(torch.zeros(3 - rank(), 2))
    except ValueError as e:
        return str(e), gather(torch.tensor([rank()])).tolist()  # and the group is as good as before


def compiled():
    d, (x, y) = scheme('kd+sp'), batch()
    losses, _ = torch.compile(d, backend='eager')(own(x), own(y))
    sum(losses.values()).backward()
    g = flat(d)
    dist.all_reduce(g)
    return g / world_size()


def child(where, r):
    torch.set_num_threads(1)
    warnings.filterwarnings('error', message='.*torch.distributed.*deprecated')  # nothing that PyTorch is about to drop
    dist.init_process_group(
        'gloo', init_method=f'file://{where}/meet', rank=r, world_size=RANKS, timeout=timedelta(seconds=60))
    told = dict(
        me=(rank(), world_size()),
        tensors=tensors(),
        gradients=gradients(),
        silent=silent(),
        unequal=unequal(),
        learned={k: learned(m) for k, m in METHODS.items()},
        eval=steps(False),
        train=steps(True),
        half=half(),
        compiled=compiled())
    torch.save(told, where / f'{r}.pt')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    "What each of two processes found out; if they wait for each other for ever, they are ended."
    where = tmp_path_factory.mktemp('ranks')
    import house  # here, as the processes do not know the folder of the tests
    house.run_ranks(__file__, where, RANKS)
    return [torch.load(where / f'{r}.pt', weights_only=False) for r in range(RANKS)]


# --- the tests


@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def near(a, b): return ((a - b).norm() / b.norm()).item()


def test_one_process_is_left_alone():
    x = torch.randn(4, 3, requires_grad=True)
    assert gather(x) is x and (rank(), world_size()) == (0, 1)


def test_who_is_who(ranks):
    assert [r['me'] for r in ranks] == [(0, 2), (1, 2)]


@pytest.mark.parametrize('method', METHODS)
def test_two_ranks_learn_what_one_process_learns(ranks, method):
    losses, g = learned(METHODS[method])
    found = [r['learned'][method][0] for r in ranks]
    for k, v in losses.items():
        assert sum(f[k] for f in found) / RANKS == pytest.approx(v, rel=1e-5)
        if k in GATHERED:
            assert [f[k] for f in found] == pytest.approx([v] * RANKS, rel=1e-5)
    for r in ranks:
        assert near(r['learned'][method][1], g) < 1e-5


def alone_together(method):
    "What two ranks would learn that do not talk: the mean gradient of two halves."
    out = []
    for xb, yb in zip(*(v.chunk(RANKS) for v in batch())):
        d = scheme(method)
        sum(d(xb, yb)[0].values()).backward()
        out.append(flat(d))
    return sum(out) / RANKS


@pytest.mark.parametrize('method', ['sp', 'rkd', 'pkt', 'dist'])
def test_without_gathering_it_is_another_loss(method):
    assert near(alone_together(method), learned(method)[1]) > 0.1  # or the test above would show nothing


def test_real_ddp_takes_the_same_steps(ranks):
    alone = steps(False)
    start = torch.cat([p.detach().flatten() for p in scheme('kd+sp').student.parameters()])
    for r in ranks:
        assert near(r['eval'] - start, alone - start) < 1e-4


def test_real_ddp_trains_all_ranks_alike(ranks):
    assert torch.equal(ranks[0]['train'], ranks[1]['train']) and ranks[0]['train'].isfinite().all()


def test_half_precision_and_channels_last(ranks):
    value, dtype, finite = half()
    assert finite and dtype is torch.float32
    for r in ranks:
        assert r['half'][1:] == (dtype, True) and r['half'][0] == pytest.approx(value, rel=1e-3)


def test_compiled(ranks):
    for r in ranks:
        assert near(r['compiled'], learned('kd+sp')[1]) < 1e-5


def test_any_tensor_in_the_order_of_ranks(ranks):
    for r in ranks:
        for k, (got, expected) in r['tensors'].items():
            assert torch.equal(got, expected) and got.dtype is expected.dtype and not got.requires_grad, k


def test_gradients_are_summed_over_ranks(ranks):
    for i, r in enumerate(ranks):
        for k, g in r['gradients'].items():
            expected = 3 * torch.arange(4.0)[2 * i : 2 * i + 2, None, None, None].expand(
                2, 3, 4, 4
            )  # once from rank 0, twice from rank 1
            assert (
                torch.equal(g.float(), expected)
                and g.dtype is {'float': torch.float32, 'bf16': torch.bfloat16, 'double': torch.float64}[k])


def test_nothing_is_sent_back_for_a_teacher(ranks):
    assert [r['silent'] for r in ranks] == [(0, 1)] * RANKS


def test_slices_of_different_sizes_are_refused_on_all_ranks(ranks):
    for r in ranks:
        said, after = r['unequal']
        assert 'the ranks have [3, 2] images' in said and after == [0, 1]


if __name__ == '__main__':
    child(Path(sys.argv[1]), int(sys.argv[2]))
