"""Jobs and queues as users write them: refused early, naming the field and what would be accepted."""

import pytest
from pydantic import ValidationError

from launch_prefect.errors import InvalidInput
from launch_prefect.spec import CodeSource, ImageSource, JobSpec, QueueSpec

DIGEST = "sha256:" + "a" * 64


def job(**values):
    return JobSpec.parse(
        {"name": "train", "source": {"code": "./train"}, "command": ["python", "t.py"]} | values, what="t"
    )


def refusal(**values):
    with pytest.raises(InvalidInput) as error:
        job(**values)
    assert error.value.exit_code == 2
    return str(error.value)


def test_a_whole_job_is_read():
    spec = job(
        job_type="train-model",
        command=["python", "train.py", "--epochs", 100, 0.5],
        env={"MODE": "full", "N": 3, "DEBUG": True},
        config={"learning_rate": 0.001},
        resources={"cpu": 2, "gpu": 1, "memory": "8Gi"},
        timeout=60,
        description="A job.",
    )
    assert spec.command == ("python", "train.py", "--epochs", "100", "0.5")
    assert spec.env == {"MODE": "full", "N": "3", "DEBUG": "true"}
    assert spec.input_schema["properties"]["learning_rate"]["type"] == "number"
    assert isinstance(spec.source, CodeSource)


def test_what_was_read_can_be_written_and_read_again():
    spec = job(config={"a": 1}, env={"A": "${run_id}"}, resources={"memory": "8Gi"})
    assert JobSpec.parse(spec.model_dump(mode="json"), what="again") == spec


def test_an_image_may_use_its_own_command_and_a_folder_may_not():
    assert job(source={"image": "busybox"}, command=None).command is None
    assert "command" in refusal(command=None)


@pytest.mark.parametrize("command", [[], [""], "python t.py", [None], [["python"]], {"a": 1}])
def test_a_command_that_is_none_is_refused_by_name(command):
    assert "command" in refusal(command=command)


def test_no_nul_reaches_a_program():
    assert "NUL" in refusal(command=["python", "a\x00b"])
    assert "NUL" in refusal(env={"A": "a\x00b"})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("comand", "command"), ("resource", "resources"), ("sources", "source"), ("timout", "timeout")],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(key, nearest):
    text = refusal(**{key: 1})
    assert f"{key}: unknown field" in text
    assert f"did you mean {nearest!r}" in text


def test_an_unknown_key_inside_is_refused_by_its_path():
    text = refusal(resources={"memmory": "8Gi"})
    assert "resources.memmory" in text
    assert "did you mean 'memory'" in text
    text = refusal(source={"code": "x", "digset": DIGEST})
    assert "source.digset" in text
    assert "did you mean 'digest'" in text


@pytest.mark.parametrize("source", [{}, {"folder": "x"}, None, "x", [], {"code": ""}, {"image": ""}, {"code": None}])
def test_a_source_that_is_none_is_refused_with_what_is_accepted(source):
    text = refusal(source=source)
    assert "source" in text


def test_the_kinds_of_source_are_named():
    text = refusal(source={"folder": "x"})
    assert "code" in text
    assert "image" in text


@pytest.mark.parametrize("name", ["train", "Train Model 2", "modell-größe", "模型", "a.b_c", "x" * 200])
def test_names_that_prefect_takes_are_taken(name):
    assert job(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a/b", "a%b", "a&b", "a<b", "a>b", "-a", "a\nb", "a\x00b", None, []]
)
def test_names_that_would_fail_later_are_refused_at_once(name):
    assert "name" in refusal(name=name)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "Ä", "A\n"])
def test_names_of_environment_variables_are_checked(name):
    assert "environment variable" in refusal(env={name: "x"})


@pytest.mark.parametrize("value", [None, ["x"], {"a": 1}])
def test_a_variable_is_text(value):
    assert "env.A" in refusal(env={"A": value})


@pytest.mark.parametrize("timeout", [0, -1, "soon"])
def test_a_time_out_is_a_positive_number(timeout):
    assert "timeout" in refusal(timeout=timeout)


def test_macros_are_checked_when_the_job_is_written():
    job(command=["python", "${config.lr}", "${args}", "$HOME", "$${x}"], config={"lr": 1}, env={"A": "${queue_name}"})
    assert "${config.rl}" in refusal(command=["python", "${config.rl}"], config={"lr": 1})
    assert "${nme}" in refusal(env={"A": "${nme}"})
    assert "${args}" in refusal(env={"A": "${args}"})
    assert "${config.lr}" in refusal(command=["python", "${config.lr}"], config={})
    job(command=["python", "${config.lr}"])  # without declared inputs any key may come with a run


def test_several_mistakes_are_named_at_once():
    text = refusal(timeout=-1, nme="x", resources={"cpu": -1})
    for word in ("timeout", "nme", "resources.cpu"):
        assert word in text


def test_a_long_wrong_value_does_not_fill_the_message():
    assert len(refusal(timeout="x" * 100_000)) < 500


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_that_is_no_mapping_is_refused(document):
    with pytest.raises(InvalidInput, match="job file"):
        JobSpec.parse(document, what="job file")


def test_a_missing_field_is_named():
    with pytest.raises(InvalidInput, match="source"):
        JobSpec.parse({"name": "x"}, what="job file")


def test_jobs_cannot_be_changed():
    with pytest.raises(ValidationError):
        job().name = "other"


IMAGES = [
    "busybox",
    "busybox:1.36",
    "library/busybox",
    "registry.example.com/team/train:1.4",
    "localhost:5000/train",
    "registry.example.com:443/a/b/c__d/e-f.g:V1.2_x-y",
    f"busybox@{DIGEST}",
    f"busybox:1@{DIGEST}",
    DIGEST,
]


@pytest.mark.parametrize("image", IMAGES)
def test_references_that_docker_takes_are_taken(image):
    spec = job(source={"image": image}, command=None)
    assert isinstance(spec.source, ImageSource)
    assert spec.version == image


@pytest.mark.parametrize(
    "image",
    [
        "",
        " ",
        "busybox ",
        "a b",
        "busybox:",
        "busybox:a b",
        "a//b",
        "/a",
        "a/",
        "busybox@sha256:12",
        "-a",
        "a_",
        "https://x/y",
    ],
)
def test_other_references_are_refused_with_an_example(image):
    assert "registry.example.com/team/train:1.4" in refusal(source={"image": image})


def test_upper_case_in_an_image_s_name_is_explained():
    assert "lower case" in refusal(source={"image": "registry.example.com/Team/Train"})


def test_the_version_names_the_content():
    assert job(source={"code": "train", "digest": DIGEST}).version == "code-" + "a" * 12
    other = "sha256:" + "b" * 64
    assert (
        job(source={"code": "train", "digest": other}).version
        != job(source={"code": "train", "digest": DIGEST}).version
    )
    assert "digest" in refusal(source={"code": "train", "digest": "md5:1"})


def queue(**values):
    return QueueSpec.parse({"queue_name": "gpu", "target": "docker"} | values, what="queue")


def test_a_queue_is_read():
    spec = queue(concurrency=4, resource_config={"init": False})
    assert (spec.queue_name, spec.target, spec.concurrency) == ("gpu", "docker", 4)
    assert queue().concurrency is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"target": "dokcer"}, ["target", "docker", "process", "dokcer"]),
        ({"concurrency": -1}, ["concurrency", "-1"]),
        ({"concurrency": "many"}, ["concurrency", "many"]),
        ({"queue_name": "a/b"}, ["queue_name", "'/'"]),
        ({"concurency": 1}, ["concurency", "did you mean 'concurrency'"]),
        ({"resource_config": [1]}, ["resource_config"]),
    ],
)
def test_a_wrong_queue_is_refused_by_field(values, words):
    with pytest.raises(InvalidInput) as error:
        queue(**values)
    assert all(word in str(error.value) for word in words), error.value


def test_config_defaults_that_no_run_could_be_given_are_refused():
    assert "lr" in refusal(config={"lr": float("nan")})
    assert "bytes" in refusal(config={"text": "x" * 200_000})
