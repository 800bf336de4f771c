"""Each set of words stands once: registries, checks, messages and descriptions agree with it."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from neurokd.models import choices, decoders, inflate
from neurokd.models.config import SegmenterConfig
from neurokd.models.tube_kernel import TubeConfig

SETTINGS = [
    (SegmenterConfig, "decoder", choices.Decoder),
    (SegmenterConfig, "norm", choices.Norm),
    (SegmenterConfig, "inflation", choices.Initialisation),
    (TubeConfig, "reading", choices.Reading),
    (TubeConfig, "role", choices.Role),
    (TubeConfig, "inflation", choices.Inflation),
]


@pytest.mark.parametrize(
    ("registry", "words"),
    [
        (decoders.DECODERS, choices.Decoder),
        (decoders._NORMS, choices.Norm),
        (inflate._INFLATIONS, choices.Inflation),
    ],
)
def test_every_word_is_computed_somewhere(registry, words):
    assert set(registry) == set(get_args(words))


@pytest.mark.parametrize(("settings", "field", "words"), SETTINGS)
def test_every_word_is_described(settings, field, words):
    described = re.search(rf"^    {field}\n(.*?)^    (?=\S)", settings.__doc__, re.M | re.S)[1]
    assert set(re.findall(r'``"(\w+)"``', described)) == set(get_args(words))


def test_messages_name_the_setting_the_words_and_the_value():
    for words, message in (
        ("a", "colour must be 'a', got 'z'"),
        ("ab", "colour must be 'a' or 'b', got 'z'"),
        ("abc", "colour must be 'a', 'b' or 'c', got 'z'"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            choices.check_choice("colour", "z", words)
        choices.check_choice("colour", "a", words)
    with pytest.raises(ValueError, match=r"^axis must be 'z', 'y' or 'x', got 't'$"):
        choices.check_choice("axis", "t", choices.Axis)


def test_no_other_module_lists_the_words_again():
    wanted = [set(get_args(words)) for words in (choices.Decoder, choices.Norm, choices.Reading, choices.Role)]
    for path in sorted(Path(choices.__file__).parent.glob("*.py")):
        if path.name == "choices.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                words = {part.value for part in node.elts if isinstance(part, ast.Constant)}
                assert words not in wanted, f"{path.name} line {node.lineno} lists {words} again"
