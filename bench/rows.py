"""A row of the benchmark: its section and name, a ratio and what it is relative to, and the value behind it.

A ratio and a value are a spread: least, median and most of the rounds. What cannot be measured on a machine has no
ratio; its row gives the reason (`why`).
"""
from .timing import spread_of

def table_row(section: str, name: str, to: str, ratios: list | None = None, values: list | None = None,
              unit: str = '', **more) -> dict:
    "A row; without ratios where nothing could be measured."
    ratio = spread_of(ratios) if ratios else None
    value = spread_of(values) if values else None
    return dict(section=section, name=name, to=to, ratio=ratio, value=value, unit=unit) | more

def images_row(section: str, name: str, bs: int, plain: list[float], took: list[float], **more) -> dict:
    "A row of images a second, by the plain way's, from seconds of a step in each round."
    ratios = [p / t for p, t in zip(plain, took, strict=True)]
    return table_row(section, name, 'the plain way', ratios, [bs / t for t in took], 'images/s', bs=bs, **more)

def _figure(value: float) -> str: return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'

def table_line(row: dict) -> str:
    "A row as text."
    name, ratio, value, gives = row['name'], row['ratio'], row['value'], row.get('gives')
    if ratio is None: return f"{name:56}{'–':>8}  {row['why']}"
    spread = f"{ratio['min']:.2f} to {ratio['max']:.2f}"
    line = f"{name:56}{ratio['median']:>8.2f}{spread:>17}"
    if value:
        line += f"{_figure(value['median']):>10} {row['unit']:9}"
    if gives:
        line += f" gives {gives['median']:.2f}, {gives['min']:.2f} to {gives['max']:.2f}"
    return line
