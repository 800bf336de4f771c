"""The helpers in tools/: pairs of notebook and text file, the notebook runner, the check of the dialect."""

import nbformat
import pytest

import dialect
import notebooks
import run_notebook

TEXT = """\
# %% [markdown]
# # A title
#
# Some words.

# %%
x = 1

# %% tags=["hide-cell"]
print(x + 1)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with one good pair."""
    (tmp_path / "story.py").write_text(TEXT)
    nbformat.write(notebooks.build(tmp_path / "story.py"), tmp_path / "story.ipynb")
    assert notebooks.differences(tmp_path) == []
    return tmp_path


def test_a_notebook_is_what_its_text_says(folder):
    cells = nbformat.read(folder / "story.ipynb", as_version=4).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        ("markdown", "# A title\n\nSome words."),
        ("code", "x = 1"),
        ("code", "print(x + 1)"),
    ]
    assert cells[2].metadata == {"tags": ["hide-cell"]}


def test_ids_stay_with_their_cells(folder):
    before = {cell.source: cell.id for cell in nbformat.read(folder / "story.ipynb", as_version=4).cells}
    (folder / "story.py").write_text(TEXT.replace("# %%\nx", "# %%\ny = 2\n\n# %%\nx"))
    after = {cell.source: cell.id for cell in notebooks.build(folder / "story.py").cells}
    assert after.items() >= before.items()
    assert len(set(after.values())) == 4


def edit_source(notebook):
    notebook.cells[1].source = "x = 3"


def edit_tags(notebook):
    notebook.cells[2].metadata = {}


def drop_cell(notebook):
    del notebook.cells[0]


def leave_output(notebook):
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]


def leave_count(notebook):
    notebook.cells[1].execution_count = 1


def name_version(notebook):
    notebook.metadata["language_info"] = {"name": "python", "version": "3.12.1"}


@pytest.mark.parametrize("change", [edit_source, edit_tags, drop_cell, leave_output, leave_count, name_version])
def test_every_difference_is_found_and_mended(folder, change):
    notebook = nbformat.read(folder / "story.ipynb", as_version=4)
    change(notebook)
    nbformat.write(notebook, folder / "story.ipynb")
    assert len(notebooks.differences(folder)) == 1 and "story" in notebooks.differences(folder)[0]
    nbformat.write(notebooks.build(folder / "story.py"), folder / "story.ipynb")
    assert notebooks.differences(folder) == []


def test_both_halves_of_a_pair_must_be_there(folder):
    (folder / "story.py").rename(folder / "other.py")
    assert ["other" in line or "story" in line for line in notebooks.differences(folder)] == [True, True]


def test_a_notebook_edited_in_jupyterlab_becomes_text(folder):
    notebook = nbformat.read(folder / "story.ipynb", as_version=4)
    notebook.metadata["language_info"]["version"] = "3.12.1"
    edit_source(notebook)
    leave_output(notebook)
    nbformat.write(notebook, folder / "story.ipynb")
    notebooks.write_text(folder / "story.ipynb")
    assert (folder / "story.py").read_text() == TEXT.replace("x = 1", "x = 3")


PROGRESS = """\
import sys
from tqdm.auto import tqdm
for _ in tqdm(range(3), desc="training"):
    pass
print("said aloud")
"""


def test_the_runner_shows_text_and_bars_and_keeps_html(tmp_path, capsys):
    cells = [nbformat.v4.new_markdown_cell("## Chapter\nwords"), nbformat.v4.new_code_cell(PROGRESS)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "story.ipynb")
    html = tmp_path / "out" / "story.html"
    assert run_notebook.main([str(tmp_path / "story.ipynb"), str(html)]) == 0
    shown = capsys.readouterr()
    assert shown.out.index("## Chapter") < shown.out.index("said aloud")
    assert "words" not in shown.out
    assert "training: 100%" in shown.err
    assert "said aloud" in html.read_text()
    assert html.read_text().count("training: ") == 1  # the last state of the bar only


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import time; time.sleep(60)", "2 seconds"),
    ],
)
def test_the_runner_fails_when_a_cell_fails_or_is_stuck(tmp_path, capsys, code, said):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "story.ipynb")
    html = tmp_path / "story.html"
    assert run_notebook.main([str(tmp_path / "story.ipynb"), str(html), "--timeout", "2"]) == 1
    assert said in capsys.readouterr().err
    assert not html.exists()


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ('def f():\n    """The sum."""\n', "docstring of f opens with 'The', not with a verb"),
        ('def f(a):\n    """Return it.\n\n    a\n        Of the shuffle.\n    """\n', "begins with 'Of'"),
        ('@dataclass\nclass A:\n    """One.\n\n    Attributes\n    ----------\n    """\n', "not under Parameters"),
        ('def f(size):\n    raise ValueError(f"size is {size}; it must be 1")\n', "not 'NAME must be X, got Y'"),
        ("of = 1\n", "'of' is a preposition"),
        ("def f(at):\n    pass\n", "'at' is a preposition"),
        ("_log = logging.getLogger(__name__)\n", "the logger is called _log"),
    ],
)
def test_what_is_not_in_the_dialect_is_found(tmp_path, capsys, code, complaint):
    (tmp_path / "module.py").write_text(code)
    assert dialect.main([str(tmp_path / "module.py")]) == 1
    assert complaint in capsys.readouterr().out


DIALECT = '''
@dataclass
class A:
    """One thing.

    Parameters
    ----------
    size
        Size of the thing.
    """

    @property
    def area(self):
        """Square of the size."""

    def to_dict(self, size):
        """Return it as a dict."""
        if size < 1:
            raise ValueError(f"size must be >= 1, got {size}")
        raise ValueError(f"{size}: a file that is cut short")
'''


def test_what_is_in_the_dialect_passes(tmp_path, capsys):
    (tmp_path / "module.py").write_text(DIALECT)
    assert dialect.main([str(tmp_path / "module.py")]) == 0
    assert capsys.readouterr().out == ""


def test_the_package_is_written_in_its_dialect(capsys):
    assert dialect.main([]) == 0, capsys.readouterr().out
