"Reads settings.ini, where nbdev keeps what a package needs to know; no nbdev needed to install."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here = Path(__file__).resolve().parent
cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read(here/'settings.ini', encoding='utf-8')
c = cfg['DEFAULT']
extras = {k: c[f'{k}_requirements'].split() for k in ('dev', 'lab', 'tensorboard', 'timm')}
readme = here/'README.md'

setup(name=c['lib_name'], version=c['version'], description=c['description'], keywords=c['keywords'].split(), license='Apache-2.0',
      author=c['author'], author_email=c['author_email'], url=c['git_url'],
      long_description=readme.read_text(encoding='utf-8') if readme.exists() else c['description'], long_description_content_type='text/markdown',
      packages=find_packages(include=['kdnb', 'kdnb.*']), python_requires=f">={c['min_python']}", zip_safe=False,
      install_requires=c['requirements'].split(), extras_require=extras,
      entry_points={'console_scripts': [l.strip() for l in c['console_scripts'].splitlines() if l.strip()], 'nbdev': [f"{c['lib_path']}={c['lib_path']}._modidx:d"]})
