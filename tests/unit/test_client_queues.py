"""A queue's builder in its work pool's template, and jobs that a queue can never run."""

import copy
import json

import pytest
from prefect.client.schemas.objects import WorkPool

from launch_prefect import Job, Queue
from launch_prefect.client.fits import check_fits
from launch_prefect.errors import InvalidInput
from launch_prefect.queues import pools
from launch_prefect.spec import BuilderSpec, QueueSpec

BUILDER = {
    "registry": "registry.example.com/team",
    "registry_credentials": "docker-registry-credentials/team",
    "platform": "linux/arm64",
    "base_image": "cuda:{python}",
    "secrets": {"UV_INDEX": "secret/index"},
    "max_builds": 1,
    "ahead": 0,
}


def queue(target="docker", **values):
    return QueueSpec.parse({"queue_name": "gpu", "target": target, **values}, what="the queue")


def pool(spec, template=None):
    template = pools.template_for(spec) if template is None else template
    return WorkPool.model_construct(
        name=spec.queue_name, type=f"launch-{spec.target}", base_job_template=json.loads(json.dumps(template))
    )


@pytest.mark.parametrize("builder", [BUILDER, {}, {"type": "none"}])
def test_a_builder_is_read_back_from_the_template(builder):
    assert pools.builder_of(pool(queue(builder=builder))) == BuilderSpec.model_validate(builder)


def test_a_builder_names_blocks_as_templates_alone():
    default = pools.template_for(queue(builder=BUILDER))["variables"]["properties"]["builder"]["default"]
    assert default["registry_credentials"] == "{{ prefect.blocks.docker-registry-credentials.team }}"
    assert default["secrets"] == {"UV_INDEX": "{{ prefect.blocks.secret.index }}"}


def test_a_file_changes_what_it_says_and_leaves_the_rest():
    there = pool(queue(builder=BUILDER, resource_config={"stop_grace": 60}))

    def after(**values):
        changed = pool(queue(), pools._updated(there, queue(**values)))
        grace = changed.base_job_template["variables"]["properties"]["stop_grace"]["default"]
        return grace, pools.builder_of(changed)

    assert after() == (60, BuilderSpec.model_validate(BUILDER))
    assert after(builder={"ahead": 5}) == (60, BuilderSpec(ahead=5))
    assert after(builder={}) == (60, BuilderSpec())
    assert after(resource_config={"stop_grace": 5}) == (5, BuilderSpec.model_validate(BUILDER))


def test_a_queue_of_an_older_version_gets_what_came_since():
    fresh = pools.template_for(queue())
    older = copy.deepcopy(fresh)
    for name in ("builder", "build", "git_credentials"):
        del older["variables"]["properties"][name]
        del older["job_configuration"][name]
    older["variables"]["properties"]["stop_grace"]["default"] = 7
    assert pools.builder_of(pool(queue(), older)) == BuilderSpec()
    updated = pools._updated(pool(queue(), older), queue())
    assert updated["job_configuration"] == fresh["job_configuration"]
    assert updated["variables"]["properties"].keys() == fresh["variables"]["properties"].keys()
    assert updated["variables"]["properties"]["stop_grace"]["default"] == 7


def test_a_builder_that_somebody_has_changed_to_nonsense_is_named():
    template = pools.template_for(queue())
    template["variables"]["properties"]["builder"]["default"] = {"registri": "a"}
    with pytest.raises(InvalidInput, match=r"'gpu'.*registri.*did you mean 'registry'"):
        pools.builder_of(pool(queue(), template))


@pytest.mark.parametrize("name", ["builder", "build", "source", "git_credentials", "rebuild"])
def test_what_does_not_belong_into_a_resource_configuration(name):
    with pytest.raises(InvalidInput, match=rf"resource_config\.{name}: "):
        pools.template_for(queue(resource_config={name: {}}))


def test_jobs_that_a_queue_can_never_run(tmp_path):
    code, image = Job.from_code(tmp_path, entrypoint=["a"]).spec, Job.from_image("a/b:1").spec
    git = Job.from_git("https://example.com/a/b", entrypoint=["a"]).spec
    own = Job.from_code(tmp_path, build={"dockerfile": "Dockerfile"}).spec
    docker, images_only, process = pool(queue()), pool(queue(builder={"type": "none"})), pool(queue("process"))
    for fits in ((code, docker), (git, docker), (image, docker), (own, docker), (image, images_only), (code, process)):
        check_fits(*fits)
    for job in (code, git, own):
        with pytest.raises(InvalidInput, match="'gpu' builds no images") as error:
            check_fits(job, images_only)
        assert "Submit an image" in error.value.mend
    with pytest.raises(InvalidInput, match=r"build\.dockerfile: the queue 'gpu' runs processes"):
        check_fits(own, process)
    with pytest.raises(InvalidInput, match="cannot run the image"):
        check_fits(image, process)


def test_options_of_queues_and_runs_that_are_not_there_are_named():
    with pytest.raises(TypeError, match="did you mean 'concurrency'"):
        Queue.create("gpu", target="docker", concurency=1)
    with pytest.raises(TypeError, match="did you mean 'resources'"):
        Queue("gpu").submit("a", resource={})
    with pytest.raises(InvalidInput, match=r"builder\.type: target process runs no images"):
        Queue.create("cpu", target="process", builder={"type": "docker"})
