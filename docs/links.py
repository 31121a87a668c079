"""Links of notebooks and pages: found outside code, and pointed anew where the text is shown elsewhere.

A link is written relative to the file that holds it, so that it works in JupyterLab and on GitHub. README and the site
show the same text in another folder, so there each relative link is written anew.
"""
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

ROOT = Path(__file__).resolve().parent.parent

_pattern = re.compile(
    r'(?P<code>^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))'
    r'|(?P<before>\]\(|(?:src|href)=")(?P<link>[^)"\s]+)', re.S | re.M)

def change_links(text: str, change: Callable[[str], str]) -> str:
    """Give each link of a Markdown text to `change`, which answers with the new one; code stays as it is."""
    def new(m: re.Match) -> str: return m[0] if m['code'] else m['before'] + change(m['link'])
    return _pattern.sub(new, text)

def find_links(text: str) -> list[str]:
    """List the links of a Markdown text."""
    found: list[str] = []
    def note(link: str) -> str:
        found.append(link)
        return link
    change_links(text, note)
    return found

def is_relative(link: str) -> bool:
    """Tell whether a link leads to a file beside this one, and not to an address or to a place on this page."""
    return not re.match(r'[a-z][a-z0-9+.-]*:|#|/', link, re.I)

def target_of(link: str, page: str) -> tuple[str, str]:
    """Return the file of the repository that a relative link of a page leads to, and the part from `#` on."""
    path, mark, fragment = link.partition('#')
    return normpath(join(dirname(page), path)), mark + fragment

def move_links(text: str, old: str, new: str) -> str:
    """Point the relative links of a text, which stood in the file `old`, from the file `new`."""
    def moved(link: str) -> str:
        if not is_relative(link): return link
        path, fragment = target_of(link, old)
        return relpath(path, dirname(new) or '.') + fragment
    return change_links(text, moved)

def texts_of(path: Path) -> Iterator[str]:
    """The Markdown of a page, or of a notebook: its cells, and what they show."""
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.ipynb':
        yield text
        return
    for cell in json.loads(text)['cells']:
        if cell['cell_type'] == 'markdown':
            yield ''.join(cell['source'])
        shown = [o.get('data', {}).get('text/markdown') for o in cell.get('outputs', [])]
        yield from (''.join(data) for data in shown if data)
