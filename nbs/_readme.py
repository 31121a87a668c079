"How nbs/index.ipynb becomes README.md: `jupyter nbconvert --config nbs/_readme.py nbs/index.ipynb`, which is what `make readme` does."
from nbconvert.preprocessors import Preprocessor

class Readable(Preprocessor):
    "Directives are obeyed and left out, code is marked as Python, and a figure is called after its cell: its path outlives new cells above."
    def preprocess(self, nb, resources):
        nb.metadata['language_info'] = dict(name='python')
        for cell in nb.cells:
            lines = cell.source.splitlines()
            if '#| echo: false' in lines: cell.metadata['transient'] = dict(remove_source=True)
            if cell.cell_type == 'code': cell.source = '\n'.join(l for l in lines if not l.startswith('#|'))
            self.name_figures(cell, resources)
        return nb, resources

    def name_figures(self, cell, resources):
        figures = [o.metadata.filenames for o in cell.get('outputs', []) if 'image/png' in o.get('data', {})]
        for i, names in enumerate(figures):
            new = f"{resources['output_files_dir']}/{cell.id}{f'-{i}' if i else ''}.png"
            resources['outputs'][new] = resources['outputs'].pop(names['image/png'])
            names['image/png'] = new

c = get_config()  # noqa: F821, nbconvert provides it
c.NbConvertApp.export_format = 'markdown'
c.NbConvertApp.output_base = 'README'
c.MarkdownExporter.preprocessors = [Readable]
c.RegexRemovePreprocessor.patterns = [r'\s*#\|\s*hide\b', r'\s*\Z']
