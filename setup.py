"Reads settings.ini, where nbdev keeps what there is to know of a package; no nbdev is needed to install."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here = Path(__file__).resolve().parent
cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read(here/'settings.ini', encoding='utf-8')
c = cfg['DEFAULT']
lines = lambda key: [l.strip() for l in c[key].splitlines() if l.strip()]
extras = {k.removesuffix('_requirements'): v.split() for k, v in c.items() if k.endswith('_requirements')}

# on PyPI there is no repository beside the page: relative figures and links of the README become absolute
raw, blob = (c['git_url'].replace('github.com', 'raw.githubusercontent.com') + f"/{c['branch']}/", f"{c['git_url']}/blob/{c['branch']}/")
readme = (here/'README.md').read_text(encoding='utf-8') if (here/'README.md').exists() else c['description']
readme = re.sub(r'(!?)(\[[^\]]*\]\()(?![a-z]+:|#)', lambda m: m[1] + m[2] + (raw if m[1] else blob), readme)

setup(name=c['lib_name'], version=c['version'], description=c['description'], keywords=c['keywords'].split(), license='Apache-2.0',
      author=c['author'], author_email=c['author_email'], url=c['git_url'], long_description=readme, long_description_content_type='text/markdown',
      classifiers=lines('classifiers'), packages=find_packages(include=['kdnb', 'kdnb.*']), python_requires=f">={c['min_python']}", zip_safe=False,
      install_requires=c['requirements'].split(), extras_require=extras,
      entry_points=dict(console_scripts=lines('console_scripts'), nbdev=[f"{c['lib_path']}={c['lib_path']}._modidx:d"]))
