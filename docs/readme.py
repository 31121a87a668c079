"""How nbs/index.ipynb becomes README.md: the configuration of nbconvert that `make readme` uses.

    jupyter nbconvert --config docs/readme.py --output-dir . nbs/index.ipynb
"""
from nbconvert.preprocessors import Preprocessor

class Readable(Preprocessor):
    """Obey directives and leave them out, mark code as Python, and call a figure after its cell.

    A figure's path then outlives new cells above it.
    """
    def preprocess(self, nb, resources):
        nb.metadata['language_info'] = dict(name='python')
        for cell in nb.cells:
            self.obey_directives(cell)
            self.name_figures(cell, resources)
        return nb, resources

    def obey_directives(self, cell) -> None:
        "Hide the code of `#| echo: false`, and leave out lines that begin with `#|`."
        lines = cell.source.splitlines()
        if '#| echo: false' in lines:
            cell.metadata['transient'] = dict(remove_source=True)
        if cell.cell_type == 'code':
            cell.source = '\n'.join(line for line in lines if not line.startswith('#|'))

    def name_figures(self, cell, resources) -> None:
        "Call the figures of a cell by its id."
        figures = [o.metadata.filenames for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]
        for i, names in enumerate(figures):
            number = f'-{i}' if i else ''
            new = f"{resources['output_files_dir']}/{cell.id}{number}.png"
            resources['outputs'][new] = resources['outputs'].pop(names['image/png'])
            names['image/png'] = new

c = get_config()  # noqa: F821 - nbconvert provides it
c.NbConvertApp.export_format = 'markdown'
c.NbConvertApp.output_base = 'README'
c.MarkdownExporter.preprocessors = [Readable]
c.RegexRemovePreprocessor.patterns = [r'\s*#\|\s*hide\b', r'\s*\Z']
