"""`compile=True`: a step of any method or scheme goes through the compiler as one graph, or the reason stands here."""
import pytest
import torch
from test_fake_cuda import METHODS, SCHEMES, Wrong, noise, pair, scheme_of
from torch import nn

from kdnb.all import Alone, Distill, Learner
from kdnb.losses import at_loss, nst_loss, ofd_loss
from kdnb.schemes import Scheme

pytestmark = pytest.mark.slow               # it compiles

# Large maps go through these losses in pieces, each forgotten once its gradient is taken: a graph would hold them all.
# JointRD has the last one.
BREAKS = {'at': at_loss, 'nst': nst_loss, 'ofd': lambda s, t: ofd_loss(s, t, torch.zeros(4))}


def graphs(scheme: Scheme) -> int:
    "How many graphs a step is, with every weight at 1; a break is an error."
    learn, seen = Learner(scheme, noise(), cbs=None), []
    scheme.train()
    scheme.now = {name: torch.ones(()) for name in scheme.weights(0, 1)}
    (x, y), index = learn.data.examples(8, 'train'), torch.arange(8)
    asked = {name: v for name, v in dict(index=index, view=x).items() if name in scheme.asks}
    def keep(graph: nn.Module, example: list) -> nn.Module:
        seen.append(graph)
        return graph
    torch.compiler.reset()
    torch.compile(scheme, backend=keep, fullgraph=True)(x, y, **asked)
    return len(seen)


def test_all_other_methods_together_are_one_graph():
    others = [m for m in METHODS if m not in (*BREAKS, 'self')]        # 'self' is kd with another teacher
    assert graphs(Distill(*pair(), '+'.join(others))) == 1


@pytest.mark.parametrize('name', [s for s in SCHEMES if s != 'jointrd'])
def test_schemes_are_one_graph(name): assert graphs(scheme_of(name)) == 1


@pytest.mark.parametrize('method', BREAKS)
def test_these_break_there_only(method):
    torch.compiler.reset()
    s, t = torch.rand(2, 4, 4, 4, requires_grad=True), torch.rand(2, 4, 4, 4)
    reasons = torch._dynamo.explain(BREAKS[method])(s, t).break_reasons
    assert reasons and all('_add_pieces' in r.reason for r in reasons)


def test_a_break_would_be_found():
    with pytest.raises(torch._dynamo.exc.Unsupported, match='[Dd]ata-dependent'):
        graphs(Alone(Wrong('waits for a condition')))
