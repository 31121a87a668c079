"""The figure of docs/speed.md: the time of a step as one quantity grows, with the straight line that is nearest."""
from pathlib import Path

from bench.speed import Line, Speed, growing

STATIC = Path(__file__).resolve().parent/'static'

GROWTH = (
    'A step of KD from resnet8 to resnet8 on 32 images of 32 pixels with 10 classes, in which one quantity is raised '
    '([how](../bench/growth.py)). Width and the side of an image are drawn over their squares, as the work is: the '
    'lines are straight. The narrowest net is above its line, as BatchNorm and ReLU grow with the width and not with '
    'its square; a further method costs a small part of what the nets do.')

def growth_figure(speed: Speed) -> str:
    "Draw it into docs/static, and return its path from docs/."
    import matplotlib.pyplot as plt
    path = STATIC/f'growth{speed.path.stem.removeprefix("bench")}.svg'
    with plt.rc_context({'svg.hashsalt': 'kdnb', 'svg.fonttype': 'none', 'font.size': 8}):
        fig, axes = plt.subplots(2, 3, figsize=(7.5, 4), layout='constrained')
        for ax, what in zip(axes.flat, growing(speed)):
            line = Line.through(speed.rows('growth', what=what))
            ax.plot(line.work, [line.base + line.slope*x for x in line.work], color='0.6', lw=1)
            ax.plot(line.work, line.ms, 'o', ms=4)
            ax.set_xticks(line.work, [f'{v:,}' for v in line.at])
            ax.set(xlabel=what, ylim=(0, None))
        fig.supylabel('ms a step')
        fig.savefig(path, metadata=dict(Date=None))
        plt.close(fig)
    return f'static/{path.name}'
