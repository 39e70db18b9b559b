"""A job's inputs: typed from their defaults, checked before anything is made."""

import json
import math

import pytest
from jsonschema import Draft202012Validator

from launch_prefect.errors import InvalidInput
from launch_prefect.spec.inputs import MAX_CONFIG_BYTES, check, parse_assignments, schema_for

DEFAULTS = {
    "epochs": 3,
    "learning_rate": 0.01,
    "amp": False,
    "name": "resnet",
    "sizes": [1, 2],
    "model": {"depth": 3},
    "anything": None,
}
SCHEMA = schema_for(DEFAULTS)


def test_the_schema_is_valid_and_keeps_order_and_defaults():
    Draft202012Validator.check_schema(SCHEMA)
    properties = SCHEMA["properties"]
    assert sorted(properties, key=lambda key: properties[key]["position"]) == list(DEFAULTS)
    assert {key: value["default"] for key, value in properties.items()} == DEFAULTS
    assert {key: value.get("type") for key, value in properties.items()} == {
        "epochs": "integer",
        "learning_rate": "number",
        "amp": "boolean",
        "name": "string",
        "sizes": "array",
        "model": "object",
        "anything": None,
    }


def test_declared_inputs_say_so_to_prefect_which_otherwise_takes_any_key():
    assert SCHEMA["additionalProperties"] is False
    assert schema_for({})["additionalProperties"] is False
    assert schema_for(None)["additionalProperties"] is True


def test_the_defaults_fit_their_own_schema():
    check(DEFAULTS, SCHEMA)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"epochs": 10},
        {"learning_rate": 1},
        {"learning_rate": -1e-300},
        {"amp": True},
        {"name": ""},
        {"sizes": []},
        {"sizes": ["a", None]},
        {"model": {"other": 1}},
        {"anything": None},
        {"anything": [1]},
        {"anything": "text"},
    ],
)
def test_what_fits_is_accepted(config):
    check(config, SCHEMA)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"epochs": "ten"}, ["epochs", "integer", '"ten"']),
        ({"epochs": 1.5}, ["epochs", "integer", "1.5"]),
        ({"epochs": True}, ["epochs", "integer", "true"]),
        ({"epochs": None}, ["epochs", "integer", "null"]),
        ({"learning_rate": "0.1"}, ["learning_rate", "number", '"0.1"']),
        ({"amp": 1}, ["amp", "boolean", "1"]),
        ({"name": 3}, ["name", "string", "3"]),
        ({"sizes": {"a": 1}}, ["sizes", "array"]),
        ({"model": [1]}, ["model", "object"]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name_with_what_is_accepted(config, words):
    with pytest.raises(InvalidInput) as error:
        check(config, SCHEMA)
    for word in words:
        assert word in str(error.value)
    assert error.value.exit_code == 2


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(InvalidInput, match=r"learning_rat:.*did you mean 'learning_rate'"):
        check({"learning_rat": 0.1}, SCHEMA)


def test_an_unknown_key_that_is_like_none_is_refused_with_all_known_ones():
    with pytest.raises(InvalidInput, match=r"zzzzqqq.*epochs, learning_rate, amp"):
        check({"zzzzqqq": 1}, SCHEMA)
    with pytest.raises(InvalidInput, match="no inputs"):
        check({"zzzzqqq": 1}, schema_for({}))


def test_every_mistake_is_named_at_once():
    with pytest.raises(InvalidInput) as error:
        check({"epochs": "ten", "amp": "yes", "nme": "x"}, SCHEMA)
    for word in ("epochs", "amp", "nme"):
        assert word in str(error.value)


def test_a_job_without_declared_inputs_takes_any():
    check({"whatever": [1, {"a": None}]}, schema_for(None))


@pytest.mark.parametrize("schema", [SCHEMA, schema_for(None)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_refused_here_not_by_the_server(schema, value):
    with pytest.raises(InvalidInput, match="learning_rate"):
        check({"learning_rate": value}, schema)
    with pytest.raises(InvalidInput, match="model"):
        check({"model": {"depths": [1, value]}}, schema)


def test_a_config_larger_than_an_environment_variable_is_refused_with_its_mend():
    check({"text": "x" * (MAX_CONFIG_BYTES - 100)}, schema_for(None))
    with pytest.raises(InvalidInput, match=r"bytes.*file"):
        check({"text": "x" * MAX_CONFIG_BYTES}, schema_for(None))
    with pytest.raises(InvalidInput, match="bytes"):  # counted as it is delivered, not in characters
        check({"text": "模" * (MAX_CONFIG_BYTES // 2)}, schema_for(None))
    assert len(json.dumps({"text": "模" * (MAX_CONFIG_BYTES // 2)})) > 128 * 1024


def test_a_flow_s_richer_schema_is_explained_too():
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1},
            "mode": {"enum": ["fast", "full"]},
            "inner": {"type": "object", "properties": {"x": {"type": "number"}}},
        },
        "required": ["n"],
    }
    for config, words in (
        ({"n": 0}, ["n:", "minimum 1"]),
        ({"n": 1, "mode": "slow"}, ["mode:", "fast, full"]),
        ({"n": 1, "inner": {"x": "a"}}, ["inner.x", "number"]),
    ):
        with pytest.raises(InvalidInput) as error:
            check(config, schema)
        assert all(word in str(error.value) for word in words), error.value
    check({"other": 1}, schema)  # what is required may come from the deployment's own parameters


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("epochs=10", {"epochs": 10}),
        ("learning_rate=1e-3", {"learning_rate": 0.001}),
        ("learning_rate=.5", {"learning_rate": 0.5}),
        ("amp=true", {"amp": True}),
        ("amp=True", {"amp": True}),
        ("amp=FALSE", {"amp": False}),
        ("name=10", {"name": "10"}),
        ("name=true", {"name": "true"}),
        ("name=", {"name": ""}),
        ("name=a=b", {"name": "a=b"}),
        ("sizes=[1, 2]", {"sizes": [1, 2]}),
        ('model={"depth": 1}', {"model": {"depth": 1}}),
        ("model.depth=1", {"model": {"depth": 1}}),
        ("model.name=x", {"model": {"name": "x"}}),
        ("anything=null", {"anything": None}),
        ("anything=some words", {"anything": "some words"}),
        ("epochs=ten", {"epochs": "ten"}),
    ],
)
def test_words_of_a_command_line_are_read_by_the_input_s_type(pair, expected):
    read = parse_assignments([pair], SCHEMA)
    assert read == expected
    assert json.dumps(read) == json.dumps(expected)  # 1 is not True


def test_a_later_word_wins_and_dotted_ones_gather():
    assert parse_assignments(["epochs=1", "epochs=2", "model.a=1", "model.b.c=2"], SCHEMA) == {
        "epochs": 2,
        "model": {"a": 1, "b": {"c": 2}},
    }


def test_an_input_whose_name_has_a_dot_is_that_input():
    assert parse_assignments(["a.b=1"], schema_for({"a.b": 0})) == {"a.b": 1}


@pytest.mark.parametrize("pair", ["epochs", "=1", "", "="])
def test_a_word_that_assigns_nothing_is_refused_with_an_example(pair):
    with pytest.raises(InvalidInput, match="KEY=VALUE"):
        parse_assignments([pair], SCHEMA)


def test_a_dotted_word_into_a_value_is_refused():
    with pytest.raises(InvalidInput, match="'epochs' already has a value"):
        parse_assignments(["epochs=1", "epochs.x=2"], SCHEMA)
