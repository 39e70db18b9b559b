"""Macros: `${name}` in commands and environment."""

import itertools
import shlex

import pytest

from launch_prefect.errors import InvalidInput
from launch_prefect.spec import macros

VALUES = {
    "run_id": "0f0a",
    "run_name": "brave-fox",
    "job_name": "train",
    "queue_name": "gpu",
    "image_uri": "sha256:1",
    "author": "",
}


def test_every_run_macro_is_filled():
    assert set(VALUES) == set(macros.RUN_MACROS)
    for name, value in VALUES.items():
        assert macros.fill(f"<${{{name}}}>", VALUES) == f"<{value}>"


@pytest.mark.parametrize("text", ["$HOME", "$", "$$", "100$", "$(date)", "{run_id}", "$ {run_id}", "$1 $@ $?", "a$b}c"])
def test_a_dollar_without_a_brace_is_a_shell_s_and_stays(text):
    macros.check([text], [], where="command")
    assert macros.fill(text, VALUES) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$${run_id}", "${run_id}"),
        ("$${", "${"),
        ("$${HOME:-/root}", "${HOME:-/root}"),
        ("a$${x}b${run_id}c", "a${x}b0f0ac"),
        ("$$${run_id}", "$${run_id}"),
        ("${run_id}${run_id}", "0f0a0f0a"),
        ("$${run_id}$${run_id}", "${run_id}${run_id}"),
    ],
)
def test_two_dollars_make_a_literal_brace(text, expected):
    macros.check([text], [], where="command")
    assert macros.fill(text, VALUES) == expected


def test_escaping_any_text_gives_the_text_back():
    for letters in itertools.product("$${}a", repeat=5):
        text = "".join(letters)
        assert macros.fill(text.replace("${", "$${"), VALUES) == text


@pytest.mark.parametrize("text", ["${", "${}", "${ run_id}", "${run_id", "x ${HOME:-/root}", "${1}"])
def test_an_opened_brace_that_is_no_macro_is_refused(text):
    with pytest.raises(InvalidInput, match=r"write \$\$\{ for a literal"):
        macros.check([text], [], where="env")
    with pytest.raises(InvalidInput):  # what came past the check (from a queue's own variables) is no bug of the agent
        macros.fill(text, VALUES)


def test_an_unknown_macro_is_refused_with_the_nearest_known_one():
    with pytest.raises(InvalidInput, match=r"command: unknown macro \$\{run_nme\}; did you mean \$\{run_name\}"):
        macros.check(["${run_nme}"], [], where="command")


def test_no_macro_reads_the_environment(monkeypatch):
    monkeypatch.setenv("AGENT_TOKEN", "hidden")
    with pytest.raises(InvalidInput):
        macros.check(["${AGENT_TOKEN}"], None, where="command", args=True)
    with pytest.raises(InvalidInput):
        macros.fill("${AGENT_TOKEN}", VALUES)


def test_args_is_accepted_in_a_command_alone():
    macros.check(["${args}"], [], where="command", args=True)
    with pytest.raises(InvalidInput, match="args"):
        macros.check(["${args}"], [], where="env")


def test_a_config_macro_must_name_an_input_the_job_has():
    macros.check(["${config.lr}", "${config.model.depth}"], ["lr", "model"], where="command")
    with pytest.raises(InvalidInput, match=r"did you mean \$\{config.lr\}"):
        macros.check(["${config.rl}"], ["lr"], where="command")
    with pytest.raises(InvalidInput):
        macros.check(["${config.lr}"], [], where="command")


def test_a_job_without_declared_inputs_takes_any_config_macro_and_says_what_is_missing():
    macros.check(["${config.anything}"], None, where="command")
    with pytest.raises(InvalidInput, match=r"\$\{config.anything\} has no value in this run.*--set"):
        macros.fill("${config.anything}", VALUES)


def test_values_are_never_read_as_macros_again():
    config = {"text": "${run_id} $${x} ${nothing}"}
    assert macros.fill_command(["echo", "${config.text}"], config, VALUES) == ["echo", config["text"]]
    assert macros.fill_command(["echo", "${args}"], config, VALUES) == ["echo", "--text", config["text"]]


def test_config_values_are_texts_by_dotted_name():
    config = {"lr": 0.001, "on": True, "none": None, "name": 'say "hi"', "model": {"depth": 3, "sizes": [1, 2]}}
    assert macros.config_values(config) == {
        "config.lr": "0.001",
        "config.on": "true",
        "config.none": "null",
        "config.name": 'say "hi"',
        "config.model": '{"depth":3,"sizes":[1,2]}',
        "config.model.depth": "3",
        "config.model.sizes": "[1,2]",
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, []),
        ({"epochs": 3, "amp": True, "sizes": [1, 2]}, ["--epochs", "3", "--amp", "--sizes", "1", "2"]),
        ({"off": False, "none": None}, []),
        ({"zero": 0, "empty": ""}, ["--zero", "0", "--empty", ""]),
        ({"model": {"depth": 3}}, ["--model", '{"depth":3}']),
        ({"b": 1, "a": 2}, ["--b", "1", "--a", "2"]),
        ({"text": "two words"}, ["--text", "two words"]),
    ],
)
def test_args_are_the_config_as_options_in_its_own_order(config, words):
    assert macros.flags(config) == words
    assert macros.fill_command(["run", "${args}", "end"], config, VALUES) == ["run", *words, "end"]


def test_args_inside_a_word_are_quoted_for_a_shell():
    words = macros.fill_command(["sh", "-c", "python t.py ${args}"], {"text": "a b; rm -rf '/'"}, VALUES)
    assert words[:2] == ["sh", "-c"]
    assert shlex.split(words[2]) == ["python", "t.py", "--text", "a b; rm -rf '/'"]
