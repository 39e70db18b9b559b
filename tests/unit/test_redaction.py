"""Secret values out of what a run shows."""

import itertools

import pytest

from launch_prefect.redaction import MASK, Redactor


def test_every_occurrence_is_masked_and_the_rest_stays():
    redact = Redactor(["hunter2!"])
    assert redact("a hunter2! b hunter2!hunter2! c") == f"a {MASK} b {MASK}{MASK} c"
    assert redact("nothing of it") == "nothing of it"


@pytest.mark.parametrize("value", ["a.c*", "(((((", "\\d+\\", "[a-z]", "$^$^", "tokenü模", "{x}{y}", "a|bc|d"])
def test_a_value_is_text_not_a_pattern(value):
    redact = Redactor([value])
    assert redact(f"<{value}>") == f"<{MASK}>"
    assert redact("abbc 1234 bc m") == "abbc 1234 bc m"


def test_a_value_inside_a_longer_one_does_not_leave_the_rest_of_it():
    for order in itertools.permutations(["secret", "secret-longer", "my-secret-longer"]):
        assert Redactor(order)("my-secret-longer secret-longer secret") == f"{MASK} {MASK} {MASK}"


def test_a_value_of_several_lines_is_masked_in_each():
    key = "-----BEGIN KEY-----\nMIIabcdef\n\nab\nqrstuv\n-----END KEY-----\n"
    redact = Redactor([key])
    for line in ("-----BEGIN KEY-----", "MIIabcdef", "qrstuv"):
        assert redact(f"> {line}") == f"> {MASK}"
    assert redact("table ab cd") == "table ab cd"  # two letters would mask ordinary text
    assert "MII" not in redact(key)


@pytest.mark.parametrize("values", [[], [""], ["\n\n"], ["ab"]])
def test_nothing_worth_masking_changes_nothing(values):
    assert Redactor(values)("a table of abs\n\n") == "a table of abs\n\n"


def test_the_mask_tells_nothing_of_the_value():
    assert len({Redactor([value])(value) for value in ("abcd", "abcdefgh", "x" * 1000)}) == 1
