"""How nbs/index.ipynb becomes README.md: the configuration of nbconvert that `make readme` uses.

    jupyter nbconvert --config docs/readme.py --output-dir . nbs/index.ipynb
"""
import re
import sys
from pathlib import Path

from nbconvert.preprocessors import Preprocessor

sys.path.insert(0, str(Path.cwd()))             # the repository's root, where `make readme` stands
from docs.links import move_links  # noqa: E402 - nbconvert runs this file without the repository on its path

FIG_ALT = re.compile(r'^#\| fig-alt: (.+)', re.M)

class Readable(Preprocessor):
    """Obey directives and leave them out, mark code as Python, call a figure after its cell, and move links.

    A figure's path then outlives new cells above it. Links of the notebook work in JupyterLab; README stands above it.
    """
    def preprocess(self, nb, resources):
        nb.metadata['language_info'] = dict(name='python')
        for cell in nb.cells:
            self.move_links(cell)
            self.name_figures(cell, resources)
            self.obey_directives(cell)
        return nb, resources

    def obey_directives(self, cell) -> None:
        "Hide the code of `#| echo: false`, and leave out lines that begin with `#|`."
        lines = cell.source.splitlines()
        if '#| echo: false' in lines:
            cell.metadata['transient'] = dict(remove_source=True)
        if cell.cell_type == 'code':
            cell.source = '\n'.join(line for line in lines if not line.startswith('#|'))

    def move_links(self, cell) -> None:
        "Point the links of text, and of tables that a cell shows, from README."
        if cell.cell_type == 'markdown':
            cell.source = move_links(cell.source, 'nbs/index.ipynb', 'README.md')
        for data in (o.get('data', {}) for o in cell.get('outputs', [])):
            if 'text/markdown' in data:
                data['text/markdown'] = move_links(data['text/markdown'], 'nbs/index.ipynb', 'README.md')

    def name_figures(self, cell, resources) -> None:
        "Call the figures of a cell by its id, and say in words what `#| fig-alt:` says of them."
        alt = FIG_ALT.search(cell.source)
        figures = [o for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]
        for i, figure in enumerate(figures):
            number = f'-{i}' if i else ''
            new = f"{resources['output_files_dir']}/{cell.id}{number}.png"
            resources['outputs'][new] = resources['outputs'].pop(figure.metadata.filenames['image/png'])
            figure.data = {'text/markdown': f"![{alt[1] if alt else 'figure'}]({new})"}

c = get_config()  # noqa: F821 - nbconvert provides it
c.NbConvertApp.export_format = 'markdown'
c.NbConvertApp.output_base = 'README'
c.MarkdownExporter.preprocessors = [Readable]
c.RegexRemovePreprocessor.patterns = [r'\s*#\|\s*hide\b', r'\s*\Z']
