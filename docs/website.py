"""Write the pages of the site from notebooks, cards, docstrings and docs/*.md, and let Sphinx build it: `make docs`.

The pages lie under `_docs/source`, the site under `_docs/html`. No notebook is executed and nothing is fetched.
"""
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from posixpath import dirname, relpath

from bench.speed import machines

from .cards import Cards, method_cards
from .gallery import gallery_page, write_figures
from .links import ROOT, change_links, is_relative, target_of
from .methodpages import method_index, method_page, page_name
from .reference import reference_index, reference_pages

SITE = ROOT/'_docs'
SOURCE = SITE/'source'
WEB = Cards.site
ITSELF = 'https://kdnb.github.io/kdnb/'
FOLDERS = sorted(p.name for p in (ROOT/'nbs').iterdir() if p.is_dir() and p.name[0] not in '._')
NOTEBOOKS = sorted(p.relative_to(ROOT).as_posix() for d in FOLDERS for p in (ROOT/'nbs'/d).glob('[!._]*.ipynb'))
BESIDE = ['CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'torture/table.md']     # pages that stand elsewhere
WRITTEN = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT/'docs').glob('*.md'))
PICTURES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT/'docs/static').glob('growth*.svg'))

# --- where a file of the repository is on the site

def site_path(path: str) -> str | None:
    """Return the page of the site that shows a file or a folder of the repository, or None."""
    if path in ('README.md', 'nbs/index.ipynb', '.'): return 'index.md'
    if path in NOTEBOOKS or path in BESIDE: return path
    if path in (*WRITTEN, *PICTURES): return path.removeprefix('docs/')
    if path.removeprefix('nbs/') in FOLDERS: return f'{path}/index.md'
    return None

def site_link(link: str, page: str) -> str:
    """Point a link of a file of the repository to the page of the site, or to the file on the web."""
    here = site_path(page) or page
    if link.startswith(ITSELF) and link.endswith('.html'):
        return relpath(link.removeprefix(ITSELF).replace('.html', '.md'), dirname(here) or '.')
    if not is_relative(link): return link
    path, fragment = target_of(link, page)
    there = site_path(path)
    if there is None: return WEB + path + fragment
    cell = fragment.removeprefix('#cell-id=') if fragment.startswith('#cell-id=') else ''
    if cell: return f'#{Path(path).stem}-{cell}'
    return relpath(there, dirname(here) or '.') + fragment

BADGE = re.compile(r'\[!\[Open In Colab\]\([^)]*\)\]')

def site_text(text: str, page: str) -> str:
    """Point the links of a text to the site; a badge becomes a word, as its picture would come from elsewhere."""
    return change_links(BADGE.sub('[Open in Colab]', text), lambda link: site_link(link, page))

# --- writing

class Pages:
    """The pages under `_docs/source`; what has not changed is not written, so that Sphinx need not read it again."""
    def __init__(self):
        self.written: set[Path] = set()

    def add(self, name: str, content: str | bytes) -> None:
        """Write a page or a picture."""
        path, new = SOURCE/name, content.encode() if isinstance(content, str) else content
        self.written.add(path)
        if path.exists() and path.read_bytes() == new: return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(new)

    def remove_others(self) -> None:
        """Remove the pages of earlier builds."""
        for path in SOURCE.rglob('*'):
            if path.is_file() and path not in self.written:
                path.unlink()

# --- notebooks

def _hidden(cell: dict) -> bool:
    return bool(re.match(r'\s*#\|\s*(hide\b|default_exp)', ''.join(cell['source'])))

def _alt_text(source: str, outputs: list[dict]) -> str:
    """Say of a figure what `#| fig-alt:` says, or the words that it brought, or else which line made it."""
    told = re.search(r'^#\| fig-alt: (.+)', source, re.M)
    pictures = [out.get('metadata', {}).get('image/png', {}) for out in outputs]
    brought = [picture['alt'] for picture in pictures if 'alt' in picture]
    lines = source.strip().splitlines() or ['']
    return told[1] if told else brought[0] if brought else f'Figure made by: {lines[-1]}'

def _code_cell(cell: dict) -> dict:
    """A code cell without directives; its figures are told in words."""
    source = ''.join(cell['source'])
    shown = '\n'.join(line for line in source.splitlines() if not line.startswith('#|'))
    tags = ['remove-input'] if '#| echo: false' in source else []
    metadata = dict(tags=tags, mystnb=dict(image=dict(alt=_alt_text(source, cell['outputs']))))
    return cell | dict(source=shown, metadata=metadata)

def _linked_cells() -> set[tuple[str, str]]:
    """The cells that cards lead to: (notebook, id)."""
    places = (card['cell'].split('#') for card in method_cards())
    return {(path, cell) for path, cell in places}

def notebook_page(path: str, linked: set[tuple[str, str]]) -> str:
    """A notebook as the site shows it."""
    nb = json.loads((ROOT/path).read_text(encoding='utf-8'))
    cells = []
    for cell in nb['cells']:
        if (path, cell['id']) in linked:
            target = f"({Path(path).stem}-{cell['id']})="
            cells.append(dict(cell_type='markdown', id=f"at-{cell['id']}", metadata={}, source=target))
        if cell['cell_type'] == 'markdown':
            cells.append(cell | dict(source=site_text(''.join(cell['source']), path), metadata={}))
        elif not _hidden(cell):
            cells.append(_code_cell(cell))
    return json.dumps(nb | dict(cells=cells), ensure_ascii=False, indent=1)

def title_of(path: str) -> str:
    """The first heading of a notebook."""
    cells = json.loads((ROOT/path).read_text(encoding='utf-8'))['cells']
    found = re.search(r'^# (.+)', ''.join(cells[0]['source']), re.M)
    return found[1] if found else Path(path).stem

def _toctree(names: Iterable[str], *options: str) -> str:
    return '\n'.join(['```{toctree}', *options, '', *names, '```'])

def folder_page(folder: str) -> str:
    """The page of a folder of notebooks."""
    names = [Path(p).stem for p in NOTEBOOKS if p.startswith(f'nbs/{folder}/')]
    title = 'Tutorials' if folder == 'tutorials' else f'{folder[:2]} {folder[3:].capitalize()}'
    return f"# {title}\n\n{_toctree(names, ':maxdepth: 1')}\n"

# --- the whole

SECTIONS = {
    'Use it': ['nbs/tutorials/index', 'which', 'methods/index', 'gallery', 'works', 'protocol', 'clusters', 'coming',
               'five'],
    'Look it up': ['reference/index', 'glossary', 'format', 'results', 'exact', 'speed', 'peers', 'scope',
                   'SECURITY', 'torture/table', 'CHANGELOG', 'CONTRIBUTING'],
    'How it works': [f'nbs/{folder}/index' for folder in FOLDERS if folder != 'tutorials']}

def home_page() -> str:
    """README, how much of kdnb its tests run where that was measured, and the contents of the site."""
    text = site_text((ROOT/'README.md').read_text(encoding='utf-8'), 'README.md')
    text = text.replace(f'{WEB}README_files/', 'README_files/')
    there = {Path(p).stem for p in WRITTEN}
    made = ('/', 'gallery', 'SECURITY', 'CHANGELOG', 'CONTRIBUTING')
    trees = [
        _toctree([n for n in names if n in there or any(m in n for m in made)],
                 ':hidden:', ':maxdepth: 2', f':caption: {head}')
        for head, names in SECTIONS.items()]
    told = os.environ.get('KDNB_COVERAGE', '')                # the workflow measures it
    covered = [f'The quick tests of kdnb run {told}.'] if told else []
    return '\n\n'.join([text, *covered, *trees]) + '\n'

def write_methods(pages: Pages) -> None:
    """Write a page for each method, their index, and the gallery."""
    cards = method_cards(machines(ROOT/'nbs')[0].path)
    for card in cards:
        pages.add(f'methods/{page_name(card)}.md', site_text(method_page(card, cards), 'methods/x.md'))
    pages.add('methods/index.md', method_index(cards))
    pages.add('methods/table.md', site_text(f"# All methods in one table\n\n{cards.markdown('../')}\n", 'methods/x.md'))
    for name, picture in write_figures().items():
        pages.add(name, picture)
    pages.add('gallery.md', gallery_page(cards))

def write_pages() -> int:
    """Write all pages; returns how many there are."""
    pages, linked = Pages(), _linked_cells()
    for path in NOTEBOOKS:
        pages.add(path, notebook_page(path, linked))
    for folder in FOLDERS:
        pages.add(f'nbs/{folder}/index.md', folder_page(folder))
    for path in [*WRITTEN, *BESIDE]:
        pages.add(site_path(path), site_text((ROOT/path).read_text(encoding='utf-8'), path))
    for path in PICTURES:
        pages.add(site_path(path), (ROOT/path).read_bytes())
    for path in (ROOT/'README_files').iterdir():
        pages.add(f'README_files/{path.name}', path.read_bytes())
    for name, text in reference_pages().items():
        pages.add(f'reference/{name}.rst', text)
    pages.add('reference/index.md', reference_index())
    write_methods(pages)
    pages.add('index.md', home_page())
    pages.remove_others()
    return len([p for p in pages.written if p.suffix in ('.md', '.rst', '.ipynb')])

def build() -> int:
    """Write the pages and let Sphinx build the site: a warning is an error. Returns the exit code.

    All pages are written (`-a`), as each has the side bar; what has not changed is not read again.
    """
    start = time.monotonic()
    count = write_pages()
    options = ['-b', 'html', '-c', ROOT/'docs', '-d', SITE/'doctrees', '-a', '-W', '--keep-going', '-q']
    code = subprocess.run([sys.executable, '-m', 'sphinx', *options, SOURCE, SITE/'html'], cwd=ROOT).returncode
    if code == 0:
        print(f'{count} pages in {time.monotonic() - start:.0f} s: _docs/html/index.html')
    return code

if __name__ == '__main__':
    sys.exit(build())
