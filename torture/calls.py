"""Wrong calls of every name and every command."""

import inspect
import random
import re
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

import torch

import kdnb.all
import kdnb.cli
from kdnb.errors import Mistake

from .odd import ODD
from .runs import image_folder, net, undisturbed, within

WRONG = [v for v in ODD if not isinstance(v, str)]
WRONG += ['', 'nobody', '=1+1', '\x1b', -1.5, 2**70, object(), torch.ones(0), net]
ALWAYS = {'load_data': 'name', 'sweep': 'data', 'tune': 'data'}         # else CIFAR-100 would be fetched


def _is_asked(name: str) -> bool:
    "Whether a name can be called wrongly."
    called = getattr(kdnb.all, name)
    return callable(called) and not (isinstance(called, type) and issubclass(called, (Exception, list)))


NAMES = sorted(filter(_is_asked, kdnb.all.__all__))


def wrong_call(rng: random.Random, root: Path) -> None:
    """A name of kdnb.all is called with odd values: it answers, or refuses in words, within a minute. Left out: its
    dicts, and Diverged and Method, an exception and a list, which take whatever they are given."""
    name = rng.choice(NAMES)
    called = getattr(kdnb.all, name)
    every = inspect.signature(called).parameters.values()
    wanted = [p for p in every if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    args = {p.name: rng.choice(WRONG) for p in wanted
            if p.default is p.empty or p.name == ALWAYS.get(name) or rng.random() < .3}
    with within(60), suppress(Mistake): called(**args)


# --- commands

COMMANDS = sorted(name for name in vars(kdnb.cli) if name.startswith('kdnb_') and name != 'kdnb_demo')
ODD_WORDS = ('-1', '0', '1e30', '10' * 20, 'nan', '', 'nobody', '=1', 'x' * 300, 'os:system', '../..', '/dev/null',
             '\x1b[1m')


@cache
def _options(command: str) -> list[str]:
    "The options that its help tells."
    with redirect_stdout(told := StringIO()), suppress(SystemExit): getattr(kdnb.cli, command)(['-h'])
    return sorted({*re.findall(r'^ +(--[a-z-0-9]+)', told.getvalue(), re.M)} - {'--help'})


def _begin(command: str, rng: random.Random, root: Path) -> list[str]:
    "What a command is asked, so that it fetches nothing and trains for no minutes."
    run = rng.choice(['nobody', '*', '/dev/null', str(undisturbed('kd+at', root)[1])])
    words = {
        'kdnb_train': ['--epochs', '0'], 'kdnb_distill': ['--epochs', '0'],
        'kdnb_sweep': rng.choice([['crd', '--dry-run'], ['nobody'], []]), 'kdnb_test': [run],
        'kdnb_report': [run, '--out', str(root/'report.html')],
        'kdnb_predict': [run, rng.choice(['nobody.png', '/dev/null', str(next(image_folder(root).rglob('*.png')))])],
        'kdnb_export': [run, rng.choice([str(root/'hub'), '/dev/null/x.pt2', 'x.onnx/y', ''])],
        'kdnb_tune': ['--teacher', run, '--epochs', '0', *rng.choice([[], ['--space', 'kd.T=1:16'], ['--space', '=']])]}
    return [*words[command], *(['--data', 'digits'] if command in ('kdnb_train', 'kdnb_distill', 'kdnb_tune') else [])]


def wrong_command(rng: random.Random, root: Path) -> None:
    "A command (any but kdnb_demo, which takes no words) has odd options: exit code 0 to 2, and no traceback."
    command = rng.choice(COMMANDS)
    words, options = _begin(command, rng, root), _options(command)
    for option in rng.sample(options, min(len(options), rng.randint(1, 4))):
        words += [option] if rng.random() < .1 else [option, rng.choice(ODD_WORDS)]
    err = StringIO()
    with within(60), redirect_stderr(err), redirect_stdout(StringIO()):
        try:
            code = getattr(kdnb.cli, command)(words)
        except SystemExit as e: code = e.code
    assert code in (0, 1, 2) and 'Traceback' not in err.getvalue(), (words, code, err.getvalue()[-300:])
