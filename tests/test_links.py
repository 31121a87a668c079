"""Every relative link of notebooks, README and pages leads to a file and a place in it; others have a sound form."""
import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlparse

import pytest
from house import CFG, NOTEBOOKS, ROOT

from docs.links import change_links, find_links, is_relative, move_links, target_of, texts_of
from kdnb.cli.train import train_parser
from kdnb.methods import parse_method
from kdnb.systems import recipes

MARKDOWN = sorted(p for d in ('.', 'docs', '.github', '.github/ISSUE_TEMPLATE') for p in (ROOT/d).glob('*.md'))
PAGES = ['llms.txt', *(p.relative_to(ROOT).as_posix() for p in MARKDOWN), *NOTEBOOKS]
OURS = re.compile(rf"{re.escape(CFG['git_url'])}/(?:blob|tree|raw)/{CFG['branch']}/|"
                  rf"https://colab\.research\.google\.com/github/{CFG['user']}/{CFG['repo']}/blob/{CFG['branch']}/")

def links_of(page: str) -> list[str]: return [link for text in texts_of(ROOT/page) for link in find_links(text)]

def slugs(path: Path) -> set[str]:
    """The places of a Markdown page that a link can name: its headings, as GitHub spells them."""
    heads = re.findall(r'^#+ (.+)', path.read_text(encoding='utf-8'), re.M)
    return {re.sub(r'[^\w\- ]', '', head.lower()).replace(' ', '-') for head in heads}

def has_place(path: Path, fragment: str) -> bool:
    """Whether a file has the cell, the test or the heading that a link names."""
    place = fragment.removeprefix('#')
    if not place: return True
    if path.suffix == '.ipynb':
        ids = {cell['id'] for cell in json.loads(path.read_text(encoding='utf-8'))['cells']}
        return place.removeprefix('cell-id=') in ids
    if path.suffix == '.py': return f'\ndef {place}(' in path.read_text(encoding='utf-8')
    return place in slugs(path)

def is_dead(link: str, page: str) -> bool:
    """Whether a relative link leads nowhere; one to our own repository on the web is a relative one from its root."""
    ours = OURS.match(link)
    if ours: page, link = 'README.md', link[ours.end():]
    if not (ours or is_relative(link)): return False
    path, fragment = target_of(link, page)
    return not (ROOT/path).exists() or not has_place(ROOT/path, fragment)

def is_odd(link: str) -> bool:
    """Whether an address is not of the form https://host.tld/..., or ends like a sentence."""
    if is_relative(link) or link.startswith(('#', 'mailto:')): return False
    url = urlparse(link)
    host = re.fullmatch(r'[\w-]+(\.[\w-]+)+', url.netloc)
    return url.scheme != 'https' or not host or link[-1] in '.,;:' or '//' in url.path

@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    links = links_of(page)
    assert [link for link in links if is_dead(link, page)] == [], 'no such file, cell, test or heading'
    assert [link for link in links if is_odd(link)] == []

@pytest.mark.parametrize('page', [p for p in NOTEBOOKS if 'colab.research' in json.dumps(NOTEBOOKS[p])])
def test_a_badge_opens_its_own_notebook(page):
    assert all(link.endswith(page) for link in links_of(page) if 'colab.research.google.com/github' in link)

def test_what_is_no_link_is_found_out():
    assert is_dead('nothing.md', 'README.md') and is_dead('nbs/index.ipynb#cell-id=nothing', 'README.md')
    assert not is_dead('nbs/index.ipynb#cell-id=title', 'README.md')
    assert is_dead(f"{CFG['git_url']}/blob/main/nothing.py", 'README.md')
    assert is_odd('http://a.org') and is_odd('https://localhost/x') and is_odd('https://a.org/b.')
    assert not is_odd('https://a.org/b')

def test_links_in_code_are_no_links():
    text = 'a [b](c.md), `[d](e.md)`, ``[`](f.md)``\n```\n[g](h.md)\n```\n<img src="i.png"> ![j](k.png)'
    assert find_links(text) == ['c.md', 'i.png', 'k.png']
    assert change_links(text, lambda link: link) == text

def test_links_move_with_their_text():
    text = '[a](tutorials/x.ipynb#y) [b](../docs/z.md) [c](https://d.org) [e](#f)'
    assert move_links(text, 'nbs/i.ipynb', 'README.md') == (
        '[a](nbs/tutorials/x.ipynb#y) [b](docs/z.md) [c](https://d.org) [e](#f)')

# --- what pages tell you to type

def typed(page: str) -> list[str]:
    """The commands and calls that a page shows in its code."""
    text = (ROOT/page).read_text(encoding='utf-8')
    return re.findall(r'`([^`\n]+)`|^(kdnb_\w+.*)$', text, re.M)

def commands(page: str) -> list[str]:
    lines = [''.join(found).partition('  #')[0] for found in typed(page)]
    return [line for line in lines if re.match(r'kdnb_(train|distill) ', line)]

@pytest.mark.parametrize('page', ['docs/coming.md', 'docs/works.md'])
def test_a_command_on_a_page_has_options_that_there_are(page):
    wrong = []
    for command in commands(page):
        args, unknown = train_parser().parse_known_args(shlex.split(command)[1:])
        if unknown or (args.method and not parse_method(args.method)): wrong.append(command)
    assert wrong == [] and len(commands(page)) >= 3

def test_a_method_on_a_page_can_be_read():
    words = re.findall(r"`'([a-z][^`']*\(.*?|[a-z]+)'`", (ROOT/'docs/coming.md').read_text(encoding='utf-8'))
    methods = [word for word in words if word not in recipes]
    assert len(methods) >= 5 and all(parse_method(method) for method in methods)
