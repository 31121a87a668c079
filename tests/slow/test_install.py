"What `pip install .` gives: built offline from a copy, put into an empty folder, used from another one."

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CFG = ConfigParser(delimiters=['='], interpolation=None)
CFG.read(ROOT / 'settings.ini', encoding='utf-8')
CFG = CFG['DEFAULT']


def python(*args, cwd, **env):
    res = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300)
    assert res.returncode == 0, res.stdout + res.stderr
    return res.stdout


def copy(to):
    "The checkout without what is not part of the source."
    everywhere = shutil.ignore_patterns('.*', 'build', 'dist', '*.egg-info', '__pycache__')
    def skip(folder, names):
        top = {'runs', 'data'} if Path(folder) == ROOT else set()       # kdnb/data is a package
        return everywhere(folder, names) | top & set(names)
    return Path(shutil.copytree(ROOT, to, ignore=skip))


def wheel(source, to):
    python('-m', 'pip', 'wheel', '.', '--no-deps', '--no-index', '--no-build-isolation', '-w', to, cwd=source)
    return next(to.glob('*.whl'))


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "The source distribution, and the wheel that is made from nothing but it."
    tmp = tmp_path_factory.mktemp('install')
    python('setup.py', '-q', 'sdist', '-d', tmp / 'sdist', cwd=copy(tmp / 'source'))
    sdist = next((tmp / 'sdist').glob('*.tar.gz'))
    with tarfile.open(sdist) as t:
        t.extractall(tmp / 'unpacked')
    return sdist, wheel(next((tmp / 'unpacked').iterdir()), tmp / 'wheel')


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    to = tmp_path_factory.mktemp('site')
    python('-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', to, built[1], cwd=to)
    return to


def metadata(whl, file):
    with zipfile.ZipFile(whl) as z:
        return z.read(next(n for n in z.namelist() if n.endswith(f'.dist-info/{file}'))).decode()


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as z:
        got = {n for n in z.namelist() if '.dist-info/' not in n}
    package = [*(ROOT / 'kdnb').rglob('*.py'), ROOT / 'kdnb' / 'zoo.json']
    assert got == {p.relative_to(ROOT).as_posix() for p in package}


def test_wheel_says_what_settings_say(built):
    m = Parser().parsestr(metadata(built[1], 'METADATA'))
    assert (m['Name'], m['Version'], m['Requires-Python']) == (
        CFG['lib_name'],
        CFG['version'],
        f">={CFG['min_python']}")
    runtime = [r for r in m.get_all('Requires-Dist') if 'extra' not in r]
    assert len(runtime) == len(CFG['requirements'].split()) and not any(
        w in r for r in runtime for w in ('nbdev', 'jupyter', 'fastcore'))
    assert set(m.get_all('Provides-Extra')) == {'dev', 'export', 'lab', 'ray', 'tensorboard', 'timm', 'tune', 'wandb'}
    assert '](README_files' not in m.get_payload() and '# kdnb' in m.get_payload()  # PyPI sees no files beside the page


def test_commands_are_installed(built):
    lines = metadata(built[1], 'entry_points.txt').replace(' ', '').splitlines()
    wanted = [each_line.strip() for each_line in CFG['console_scripts'].splitlines() if each_line.strip()]
    assert wanted and set(wanted) <= set(lines)


def test_works_without_the_tools(installed, tmp_path):
    program = '''if 1:
        import sys
        class Never:
            def find_spec(self, name, path=None, target=None):
                tools = {'nbdev', 'execnb', 'ghapi', 'jupyterlab', 'nbconvert', 'pytest', 'timm', 'tensorboard'}
                if name.split('.')[0] in tools: raise ImportError(f'{name} is not there')
        sys.meta_path.insert(0, Never())
        import kdnb
        print(kdnb.__file__)
        print(kdnb.resnet(20))
        from kdnb.all import *
        print(resnet is kdnb.resnet)'''
    said = python('-c', program, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert Path(said[0]).is_relative_to(installed) and said[1].startswith('ResNet') and said[-1] == 'True'


COMMANDS_START = """
import importlib, os, sys
import torch, torchvision           # once; a command imports the rest by itself, in a process of its own
for line in sys.argv[1:]:
    name, module, function = line.replace('=', ':').split(':')
    sys.stdout.flush()
    child = os.fork()
    if not child:
        sys.argv = [name, '-h']
        getattr(importlib.import_module(module), function)()
    assert os.waitpid(child, 0)[1] == 0, name"""

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='commands start in forks of one process')
def test_every_command_starts():
    lines = CFG['console_scripts'].split()
    said = python('-c', COMMANDS_START, *lines, cwd=ROOT)
    for line in lines:
        name, function = line.split('=')[0], line.split(':')[1]
        assert name == function and f'usage: {name}' in said
