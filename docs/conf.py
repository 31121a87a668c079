"""What Sphinx is told of the site; `python -m docs.website` (`make docs`) writes its pages and calls it."""
import sys
from configparser import ConfigParser
from pathlib import Path

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
_config = ConfigParser(delimiters=['='], interpolation=None)
_config.read(ROOT/'settings.ini', encoding='utf-8')
_cfg = _config['DEFAULT']

project, author, copyright = _cfg['title'], _cfg['author'], _cfg['copyright']
version = release = _cfg['version']
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.viewcode', 'numpydoc', 'sphinx_design']

nb_execution_mode = 'off'                       # a notebook is shown as it was saved
nb_ipywidgets_js: dict = {}                     # no script from elsewhere
nb_merge_streams = True
myst_enable_extensions = ['dollarmath', 'colon_fence', 'deflist']
myst_dmath_double_inline = True
myst_heading_anchors = 4

smartquotes = False                             # `--option` in a table is no dash
autodoc_typehints = 'none'                      # the docstring says the types
autodoc_member_order = 'bysource'
numpydoc_show_class_members = False
viewcode_line_numbers = True

html_theme = 'furo'
html_title = f'kdnb {version}'
html_static_path = ['static']
html_css_files = ['site.css']
html_favicon = 'static/icon.svg'
html_copy_source = False
html_show_sphinx = False
html_theme_options = dict(source_repository=_cfg['git_url'], footer_icons=[])
templates_path: list[str] = []
math_numfig = False

def write_inline(self, node) -> None:
    """Write a formula in a line as MathML, which browsers draw without a script."""
    from docutils import nodes
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode

def write_block(self, node) -> None:
    """Write a formula of its own as MathML."""
    from docutils import nodes
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode

def open_one_branch(app, pagename, templatename, context, doctree) -> None:
    """Let the side bar show the branch of its page only: with all 200 pages in it, half of the build is side bars."""
    whole = context['toctree']
    def one_branch(**options) -> str: return whole(**options | dict(collapse=True))
    context['toctree'] = one_branch

def setup(app) -> None:
    """Draw formulas without a script from elsewhere, and keep side bars short."""
    app.connect('html-page-context', open_one_branch, priority=400)     # before the theme's
    app.add_html_math_renderer('mathml', (write_inline, None), (write_block, None))
    app.config.html_math_renderer = 'mathml'
