"""What is said of numbers, and of lines that are no TOML: how they were meant."""

from __future__ import annotations

import pytest

from fluidgate.cli.click_words import in_our_words
from fluidgate.toml_mends import mend_of


@pytest.mark.parametrize(
    ("click", "ours"),
    [
        ("'50%' is not a valid float.", "must be a number, but is '50%'; write 0.5"),
        ("'2,5' is not a valid float.", "must be a number, but is '2,5'; write 2.5"),
        ("'1,000' is not a valid integer.", "must be a whole number, but is '1,000'; write 1000"),
        ("'0,017' is not a valid float.", "must be a number, but is '0,017'; write 0.017"),
        ("'1e6' is not a valid integer range.", "must be a whole number, but is '1e6'; write 1000000"),
        ("'128k' is not a valid integer.", "must be a whole number, but is '128k'; write 128000"),
        ("'ten' is not a valid integer.", "must be a whole number, but is 'ten'"),
        ("'' is not a valid number.", "must be a number, but is ''"),
        ("'inf' is not a valid integer.", "must be a whole number, but is 'inf'"),
        ("0 is not in the range x>=1.", "must be at least 1, but is 0"),
        ("0.0 is not in the range x>0.0.", "must be greater than 0, but is 0"),
        ("50.0 is not in the range 0.0<=x<1.0.", "must be at least 0 and less than 1, but is 50"),
        ("-1 is not in the range 0<=x<=65535.", "must be at least 0 and at most 65535, but is -1"),
        ("'x' is not one of 'a', 'b'.", "'x' is not one of 'a', 'b'."),
    ],
)
def test_in_our_words(click: str, ours: str) -> None:
    assert in_our_words(click) == ours


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("name = \u201cchat\u201d", 'write straight quotes, "'),
        ("alpha: 0.0174", "write '=' in the place of ':'"),
        ("alpha = 0,0174  # s", "write 0.0174"),
        ("alpha = 17.4 ms", "write the number alone, 17.4: the key says what it is in"),
        ("share = 99%", "write 0.99"),
        ("output_tokens = 1,000", "write 1000"),
        ("kv_tokens = 128k", "write 128000"),
        ("prefix_caching = True", "write true"),
        ("max_wait = None", "leave the key out"),
        ("alpha = .5", "write digits on both sides of the point"),
        ("name = chat", "write texts in quotes, 'chat'"),
        ("profile = h100/llama-3.1-8b", "write texts in quotes, 'h100/llama-3.1-8b'"),
        ('name = "chat', "close the quotes"),
        ("[gpu", "close the bracket"),
        ('{"name": 3}', "JSON is not read; write KEY = VALUE lines under [TABLE]"),
        ("beta = ", "write a value after '='"),
        ("= 3", "mend this line"),
    ],
)
def test_mend_of_a_line(line: str, mend: str) -> None:
    assert mend_of(line) == mend
