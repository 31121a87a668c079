"Parameters and losses for an optimiser that is told which loss is the teacher's."
from fixed import numbers

def dot_case():
    "Two linear layers that both losses move, one that only distillation moves, one that only the task moves."
    return [numbers(80 + i, *shape).requires_grad_() for i, shape in enumerate([(6, 5), (5,), (5, 4), (3, 5)])]


def dot_losses(params, step):
    "(task, distillation)."
    w, b, adapter, task = params
    x = numbers(90 + step, 12, 6)@w + b
    return (x@task.T).square().mean(), .3*(x.tanh()@adapter).square().mean() + x.abs().mean()
