"""The pages of the site: a page for each method and each name of kdnb.all, figures, links that stay inside."""
import json
import re
from pathlib import Path

import pytest
import yaml
from house import CFG, NOTEBOOKS, ROOT

import kdnb.all
from docs.cards import method_cards
from docs.evidence import all_evidence, evidence_of, published_of
from docs.gallery import FIGURES, gallery_page, write_figures
from docs.links import find_links, is_relative
from docs.methodpages import method_index, method_page, page_name
from docs.reference import reference_pages
from docs.website import home_page, notebook_page, site_link, site_path, site_text

@pytest.fixture(scope='module')
def cards(): return method_cards(ROOT/'nbs/bench.json')

def test_links_stay_on_the_site_where_it_shows_the_file():
    page = 'nbs/tutorials/03_at.ipynb'
    assert site_link('../07_losses/03_feature.ipynb', page) == '../07_losses/03_feature.ipynb'
    assert site_link('../../docs/glossary.md#x', page) == '../../glossary.md#x'
    assert site_link('../05_taps', page) == '../05_taps/index.md'
    assert site_link('../../tests/test_links.py', page) == f"{CFG['git_url']}/blob/main/tests/test_links.py"
    assert site_link('nbs/07_losses/01_logit.ipynb#cell-id=kd-loss', 'README.md') == '#01_logit-kd-loss'
    assert site_link('https://kdnb.github.io/kdnb/methods/index.html', 'docs/which.md') == 'methods/index.md'
    assert site_link('static/growth-two-cores.svg', 'docs/speed.md') == 'static/growth-two-cores.svg'
    assert site_link('https://a.org', page) == 'https://a.org' and site_link('#x', page) == '#x'

def test_a_method_has_a_page_with_its_code_and_its_numbers(cards):
    pages = {page_name(card): method_page(card, cards) for card in cards}
    assert len(pages) == len(cards), 'two methods have one page'
    parts = '## Loss', '## Evidence', '## Cost', '## Three lines'
    assert [n for n in pages if not all(part in pages[n] for part in parts)] == []
    told = re.compile(r'What came out here: \d+\.\d\d|No run of it with these weights')
    assert [n for n in pages if not told.search(pages[n].partition('## Loss')[0])] == []
    assert [n for n in pages if f']({n}.md)' not in method_index(cards)] == []

def test_evidence_is_that_of_runs_on_disk():
    kd = evidence_of('kd')
    assert max(e.n for e in kd) >= 5 and all('KD(' in e.means and 'standardize' not in e.means for e in kd)
    assert 'CE(1) + AT(1000, p=2)' in {e.means for e in evidence_of('at')}
    settings = {e.setting for e in all_evidence()}
    assert any('cifar100' in s for s in settings) and any('shapes' in s for s in settings)

def test_what_was_published_says_by_whom():
    claim, = published_of('kd', ('resnet56', 'resnet20'))
    assert (claim.source, claim.rule, claim.value, claim.alone) == ('RepDistiller', 'last epoch', 70.66, 69.06)
    assert [c.source for c in published_of('dkd', ('resnet56', 'resnet20'))] == ['mdistiller']

def test_the_gallery_shows_kept_figures_and_says_where_there_is_none(cards):
    pictures, page = write_figures(), gallery_page(cards)
    assert all(p.startswith(b'\x89PNG') for p in pictures.values()) and len(pictures) == len(FIGURES)
    assert all(f.name in page for f in FIGURES) and 'VID' in page.splitlines()[-1]

def test_the_reference_has_every_name():
    text = '\n'.join(reference_pages().values())
    assert [n for n in kdnb.all.__all__ if f'.{n}\n' not in text] == []

def test_a_notebook_is_shown_as_it_was_saved():
    path = 'nbs/tutorials/01_kd.ipynb'
    nb = json.loads(notebook_page(path, set()))
    kept = {c['id']: c.get('outputs') for c in NOTEBOOKS[path]['cells']}
    assert all(c.get('outputs') == kept[c['id']] for c in nb['cells'])
    source = '\n'.join(c['source'] for c in nb['cells'])
    assert '#| hide' not in source and 'pip install' not in source
    assert all(c['metadata']['mystnb']['image']['alt'] for c in nb['cells'] if c['cell_type'] == 'code')

def test_home_lists_the_sections():
    home = home_page()
    names = 'nbs/tutorials/index', 'methods/index', 'glossary', 'gallery', 'reference/index'
    assert all(name in home for name in names)
    relative = [link for link in find_links(home) if is_relative(link) and not link.startswith('README_files')]
    pages = [link for link in relative if not site_path(link.removesuffix('/index.md'))]
    assert [link for link in pages if not (ROOT/'docs'/link).exists()] == []

def test_home_shows_the_coverage_that_the_workflow_measured(monkeypatch):
    assert 'quick tests of kdnb run' not in home_page()
    monkeypatch.setenv('KDNB_COVERAGE', '93 % of its lines, 2026-12-01')
    assert 'The quick tests of kdnb run 93 % of its lines, 2026-12-01.' in home_page()
    jobs = workflow('docs')['jobs']
    assert '--cov=kdnb' in json.dumps(jobs['coverage']) and jobs['build']['needs'] == 'coverage'
    assert 'needs.coverage.outputs.told' in json.dumps(jobs['build'])

def test_no_picture_comes_from_elsewhere():
    shown = [notebook_page(path, set()) for path in NOTEBOOKS if path != 'nbs/index.ipynb']
    assert not any(re.search(r'!\[[^]]*\]\(http|<img[^>]+src=\W*http', page) for page in shown)

def test_options_keep_their_two_dashes():
    assert 'smartquotes = False' in (ROOT/'docs/conf.py').read_text(encoding='utf-8')

def test_code_on_a_page_is_left_alone():
    assert site_text('`[a](../x.md)`', 'docs/a.md') == '`[a](../x.md)`'

# --- what a project has

def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT/f'.github/workflows/{name}.yml').read_text(encoding='utf-8'))

def test_citation_has_the_version():
    cited = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert (cited['version'], cited['repository-code']) == (CFG['version'], CFG['git_url'])

def test_every_python_is_tried():
    matrix = workflow('ci')['jobs']['test']['strategy']['matrix']
    assert matrix['python'] == ['3.10', '3.11', '3.12', '3.13'] and matrix['python'][0] == CFG['min_python']
    assert any('torch==2.6' in more['torch'] for more in matrix['include']) and 'torch>=2.6' in CFG['requirements']
    assert workflow('release')['jobs']['demonstration']['strategy']['matrix']['python'] == ['3.10', '3.13']

def test_a_release_is_built_checked_installed_and_tried():
    jobs = workflow('release')['jobs']
    steps = {name: '\n'.join(s.get('run', s.get('uses', '')) for s in job['steps']) for name, job in jobs.items()}
    assert 'python -m build' in steps['build'] and 'twine check --strict' in steps['build']
    order = [steps['demonstration'].find(word) for word in ('-m venv', 'pip" install dist/*.whl', 'kdnb_demo()')]
    assert -1 not in order and order == sorted(order) and 'checkout' not in steps['demonstration']
    assert (jobs['demonstration']['needs'], jobs['publish']['needs']) == ('build', 'demonstration')

@pytest.mark.parametrize('file', [
    'CITATION.cff', 'CODE_OF_CONDUCT.md', 'CONTRIBUTING.md', 'LICENSE', 'SECURITY.md', 'llms.txt',
    '.github/PULL_REQUEST_TEMPLATE.md', '.github/ISSUE_TEMPLATE/bug.yml', '.github/ISSUE_TEMPLATE/method.yml'])
def test_what_a_project_has_is_there(file):
    assert len((ROOT/file).read_text(encoding='utf-8')) > 200

@pytest.mark.parametrize('form', sorted(p.name for p in (ROOT/'.github/ISSUE_TEMPLATE').glob('*.yml')))
def test_a_form_can_be_read(form):
    assert yaml.safe_load(Path(ROOT/'.github/ISSUE_TEMPLATE'/form).read_text(encoding='utf-8'))

def test_tutorials_with_a_budget_ask_colab_for_a_gpu_and_say_where_runs_go():
    books = {path: json.loads((ROOT/path).read_text(encoding='utf-8')) for path in NOTEBOOKS if '/tutorials/' in path}
    with_budget = [path for path, nb in books.items() if any(cell['id'] == 'knobs' for cell in nb['cells'])]
    assert len(with_budget) >= 15
    for path in with_budget:
        assert books[path]['metadata'].get('accelerator') == 'GPU', path
        assert '/content/drive/MyDrive/runs' in json.dumps(books[path]['cells']), path
