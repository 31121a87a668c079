"README.md is nbs/index.ipynb, converted; its figures and links lead somewhere."

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def files(root):
    return {
        p.relative_to(root).as_posix(): p.read_bytes() for p in [root / 'README.md', *(root / 'README_files').glob('*')]
    }


def test_readme_is_the_index(tmp_path):
    command = [
        sys.executable,
        '-m',
        'nbconvert',
        '--config',
        'nbs/_readme.py',
        '--output-dir',
        tmp_path,
        'nbs/index.ipynb']
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    committed, converted = files(ROOT), files(tmp_path)
    assert [p for p in {**committed, **converted} if committed.get(p) != converted.get(p)] == [], 'run `make readme`'


def test_links_and_figures_exist():
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', README)
    assert [l for l in links if not (ROOT / l).exists()] == []
