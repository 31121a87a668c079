"""JupyterLab as `make lab` serves it, and the site, in a real browser. Pictures stay under .screenshots."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

playwright = pytest.importorskip('playwright.sync_api', reason='a browser needs playwright: pip install playwright')
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
SHOTS = ROOT/'.screenshots'
SITE = ROOT/'_docs/html'
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium: apt-get install chromium')

@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        except playwright.Error as e:           # installed in part, perhaps
            pytest.skip(f'Chromium does not start: {str(e).splitlines()[0]}')
        yield opened
        opened.close()

@pytest.fixture
def page(browser):
    """A page; what its console calls an error is one here."""
    opened = browser.new_page(viewport=dict(width=1300, height=950))
    opened.set_default_timeout(60_000)
    badge = '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"/>'
    opened.route(lambda url: url.startswith('https:'),                  # there may be no network
                 lambda route: route.fulfill(body=badge, content_type='image/svg+xml'))
    wrong = []
    def hear(message) -> None:
        if message.type == 'error': wrong.append(f"{message.text} {message.location['url']}")
    opened.on('console', hear)
    opened.on('pageerror', lambda error: wrong.append(str(error)))
    yield opened
    keep(opened, 'last-page')
    opened.close()
    assert wrong == []

def keep(page, name: str) -> None:
    """Keep a picture of what is seen."""
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS/f'{name}.png')

# --- JupyterLab

SETTINGS = {
    'notebook-extension/tracker': {'windowingMode': 'none'},        # all cells are there, seen or not
    'apputils-extension/notification': {'fetchNews': 'false', 'checkForUpdates': False}}
INDEX, KD = 'nbs/index.ipynb', 'nbs/tutorials/01_kd.ipynb'

# The index learns for a moment; the teacher of the smallest budget long enough to be watched and interrupted.
CHANGES = {
    INDEX: [('fit(20)', 'fit(2)'), ('fit(60)', 'fit(2)')],
    KD: [("'resnet14', 'resnet8',  4,  4)", "'resnet14', 'resnet8',  60, 4)")]}

@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of the checkout."""
    folder = tmp_path_factory.mktemp('lab')/'kdnb'
    everywhere = shutil.ignore_patterns('.*', '_*s', 'build', 'dist', 'runs', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT, folder, ignore=everywhere)
    for notebook, changes in CHANGES.items():
        text = (folder/notebook).read_text(encoding='utf-8')
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (folder/notebook).write_text(text, encoding='utf-8')
    return folder

def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@pytest.fixture(scope='module')
def lab(checkout, tmp_path_factory):
    """The address of JupyterLab, which `make lab` has started; no settings but ours."""
    own, port = tmp_path_factory.mktemp('jupyter'), free_port()
    for name, value in SETTINGS.items():
        path = own/'settings/@jupyterlab'/f'{name}.jupyterlab-settings'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    places = {f'{name}_DIR': str(own/name) for name in ('JUPYTER_CONFIG', 'JUPYTER_RUNTIME', 'JUPYTERLAB_WORKSPACES')}
    env = os.environ | places | dict(
        JUPYTERLAB_SETTINGS_DIR=str(own/'settings'), IPYTHONDIR=str(own/'ipython'), PYTHONPATH=str(checkout),
        KDNB_BUDGET='test', KDNB_RUNS=str(own/'runs'), OMP_NUM_THREADS='1')
    env.pop('MPLBACKEND', None)                                     # a notebook has its own
    options = f"--no-browser --port={port} --allow-root --IdentityProvider.token=''"
    command = ['make', '-o', '.venv/installed', 'lab', f'BIN={Path(sys.executable).parent}', f'ARGS={options}']
    with open(own/'log', 'w') as log:
        server = subprocess.Popen(command, cwd=checkout, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: answers(port) or server.poll() is not None, 60)
        assert server.poll() is None, (own/'log').read_text()
        yield f'http://127.0.0.1:{port}/lab'
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()

def answers(port: int) -> bool:
    with socket.socket() as s: return s.connect_ex(('127.0.0.1', port)) == 0

def until(true, seconds: float = 300) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, 'it took too long'
        time.sleep(.1)

def choose(page, *words: str) -> None:
    """Choose from the menu at the top."""
    page.locator('.lm-MenuBar-itemLabel', has_text=words[0]).first.click()
    for word in words[1:]:
        page.locator('.lm-Menu-itemLabel').get_by_text(word, exact=True).last.click()

def open_notebook(page, lab: str, path: str):
    """Open a notebook in a workspace of its own; returns the panel."""
    page.goto(f'{lab}/workspaces/{Path(path).stem}/tree/{path}')
    panel = page.locator('.jp-NotebookPanel:not(.lm-mod-hidden)')
    page.locator('#jp-main-statusbar', has_text='| Idle').wait_for()      # the kernel is there
    idle(page)
    return panel

def idle(page, seconds: float = 300) -> None:
    """Wait until the kernel has nothing to do."""
    page.locator('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator[data-status=idle]').wait_for(
        timeout=1000*seconds)

def run_all(page, panel, seconds: float = 300) -> None:
    """Run all cells, to the last."""
    choose(page, 'Run', 'Run All Cells')
    ran = panel.locator('.jp-CodeCell').last.locator('.jp-InputPrompt')
    until(lambda: ran.inner_text().strip('[]: ').isdigit() or errors(panel), seconds)
    idle(page)
    assert errors(panel) == []

def errors(panel) -> list[str]:
    """What cells say that went wrong."""
    kinds = 'error', 'stderr'
    return [text for kind in kinds
            for text in panel.locator(f'[data-mime-type="application/vnd.jupyter.{kind}"]').all_inner_texts()]

def use_theme(page, name: str) -> None:
    choose(page, 'Settings', 'Theme', f'JupyterLab {name}')
    page.locator(f"body[data-jp-theme-light={'true' if name == 'Light' else 'false'}]").wait_for(state='attached')

def keep_places(page, panel, what: str, **places: str) -> None:
    """Keep pictures of places of a notebook, light and dark."""
    for theme in 'Dark', 'Light':
        use_theme(page, theme)
        for name, place in places.items():
            panel.locator(place).last.evaluate("it => it.scrollIntoView({block: 'center'})")
            keep(page, f'lab-{what}-{name}-{theme.lower()}')

def test_the_index_runs_and_its_links_open(page, lab):
    panel = open_notebook(page, lab, INDEX)
    run_all(page, panel)
    assert panel.locator('.jp-OutputArea img').count() == 1
    keep_places(page, panel, 'index', picture='.jp-OutputArea img', table='.jp-OutputArea table')
    panel.locator('a', has_text='what a teacher sees').click()
    page.locator('.lm-TabBar-tab.jp-mod-current', has_text='00_teacher.ipynb').wait_for()

LOOK = '''from kdnb.all import *
explore(dict(teacher=resnet(14), student=resnet(8)), load_data('digits', size=16, device='cpu'), n=8)'''

def test_knobs_turn(page, lab, checkout):
    cell = dict(cell_type='code', id='look', metadata={}, source=LOOK, outputs=[], execution_count=None)
    kernel = dict(kernelspec=dict(name='python3', display_name='Python 3'))
    nb = dict(nbformat=4, nbformat_minor=5, metadata=kernel, cells=[cell])
    (checkout/'look.ipynb').write_text(json.dumps(nb))
    panel = open_notebook(page, lab, 'look.ipynb')
    run_all(page, panel)
    picture = panel.locator('.jp-OutputArea img')
    before = picture.get_attribute('src')
    panel.locator('.jp-OutputArea select').select_option(index=0)
    until(lambda: picture.get_attribute('src') != before)
    keep_places(page, panel, 'explore', knobs='.jp-OutputArea img')

def test_a_training_is_seen_interrupted_and_goes_on(page, lab):
    panel = open_notebook(page, lab, KD)
    choose(page, 'Run', 'Run All Cells')
    bar = panel.locator('.kdnb-fit progress')
    picture = panel.locator('.kdnb-fit img')
    def seen() -> tuple[float, str]: return float(bar.get_attribute('value')), picture.get_attribute('src')
    bar.wait_for()
    first = seen()
    until(lambda: seen()[0] > first[0] and seen()[1] != first[1])
    choose(page, 'Kernel', 'Interrupt Kernel')
    until(lambda: errors(panel), 60)
    assert seen()[0] < bar.evaluate('it => it.max'), 'it had ended before it was interrupted'
    idle(page)
    panel.locator('.kdnb-fit').scroll_into_view_if_needed()
    assert len(errors(panel)) == 1 and len(errors(panel)[0].splitlines()) <= 8
    keep(page, 'lab-interrupted')
    run_all(page, panel)
    assert panel.get_by_text("run 'test-teacher': ").count() == 1
    keep_places(page, panel, 'kd', fit='.kdnb-fit', dark='.jp-CodeCell:has-text("show_dark_knowledge(") img')

# --- the site

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass

SAMPLE = ['index', 'gallery', 'glossary', 'which', 'coming', 'peers', 'protocol', 'scope', 'methods/index',
          'nbs/tutorials/01_kd', 'nbs/11_show/06_logits', 'reference/index']
FLAWS = """() => {
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth
    const lost = [...document.images].filter(it => it.complete && !it.naturalWidth).map(it => it.src)
    const dumb = [...document.querySelectorAll('main img, article img')].filter(it => !it.alt).map(it => it.src)
    return {wide: Math.max(wide, 0), lost, dumb}
}"""

@pytest.mark.skipif(not SITE.exists(), reason='there is no site: make docs')
@pytest.mark.parametrize('wide', [1300, 390])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_pages_of_the_site_have_no_flaw(page, theme, wide):
    page.set_viewport_size(dict(width=wide, height=900))
    page.emulate_media(color_scheme=theme)
    pages = [name for name in SAMPLE if (SITE/f'{name}.html').exists()]
    assert len(pages) >= 10
    flaws = {}
    for name in pages:
        page.goto(f'file://{SITE}/{name}.html')
        found = page.evaluate(FLAWS)
        if any(found.values()): flaws[name] = found
        keep(page, f'site-{name.replace("/", "-")}-{wide}-{theme}')
    assert flaws == {}

@pytest.mark.skipif(not SITE.exists(), reason='there is no site: make docs')
def test_search_works_offline(page):
    served = HTTPServer(('127.0.0.1', 0), partial(Quiet, directory=SITE))
    Thread(target=served.serve_forever, daemon=True).start()
    page.goto(f'http://127.0.0.1:{served.server_port}/search.html?q=attention')
    page.locator('#search-results li').first.wait_for()
    page.wait_for_load_state('networkidle')
    served.shutdown()
