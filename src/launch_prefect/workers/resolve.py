"""A flow run, its deployment and its queue's template, resolved into one attempt and its configuration."""

from __future__ import annotations

import copy
import functools
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.workers.base import BaseJobConfiguration, BaseWorker

from launch_prefect.errors import InvalidInput
from launch_prefect.queues import pools
from launch_prefect.workers.attempt import Attempt, environment_from, source_from, words_from
from launch_prefect.workers.configuration import LaunchJobConfiguration, run_variables, secret_names
from launch_prefect.workers.recipes import secrets_of


async def resolve(
    worker: BaseWorker[Any, Any, Any], run: FlowRun, deployment: DeploymentResponse, *, job: str, queue: str
) -> tuple[Attempt, LaunchJobConfiguration]:
    """Resolve a run: queue's defaults < job < run, blocks and variables filled in.

    Args:
        worker: The worker that took it.
        run: The run.
        deployment: Its deployment.
        job: Name of its job.
        queue: Name of its queue.

    Returns:
        The attempt, and the configuration of the worker's target.

    Raises:
        InvalidInput: What the run, its job or its queue say cannot be used.
    """
    variables = run_variables(deployment.job_variables, run.job_variables)
    template = with_ours(worker.work_pool.base_job_template, type(worker))
    try:
        configuration: LaunchJobConfiguration = await worker.job_configuration.from_template_and_values(
            template, variables, client=worker.client
        )
    except ObjectNotFound as error:
        raise InvalidInput(
            f"The job variables of this run name what does not exist: {error}.",
            mend="Make the block or variable, or correct its name.",
        ) from None
    except ValueError as error:  # pydantic's, or a block or variable that does not exist
        raise InvalidInput(
            f"The job variables of this run can't be used: {error}.",
            mend="Correct them on the run, the job or the queue (the work pool).",
        ) from None
    env = environment_from(configuration)
    secret = secret_names(template, variables)
    attempt = Attempt(
        run_id=run.id,
        run_name=run.name,
        job=job,
        queue=queue,
        number=run.run_count + 1,
        agent=worker.name,
        author=run.created_by.display_value or "" if run.created_by else "",
        config=_in_order(run.parameters, deployment),
        source=source_from(configuration.source),
        command=words_from(configuration.command),
        env=env,
        secrets=frozenset(env[name] for name in secret if name in env) | secrets_of(configuration),
        resources=configuration.resources,
        timeout=configuration.timeout,
        stop_grace=configuration.stop_grace,
    )
    return attempt, configuration


@functools.cache
def _own_template(worker: type[BaseWorker[Any, Any, Any]]) -> dict[str, Any]:
    return worker.get_default_base_job_template()


def with_ours(template: dict[str, Any], worker: type[BaseWorker[Any, Any, Any]]) -> dict[str, Any]:
    """A queue's template with the variables of ours that it lacks: an older version made it, or somebody by hand.

    What the queue's owner took out of Prefect's own stays out.
    """
    ours = LaunchJobConfiguration.model_fields.keys() - BaseJobConfiguration.model_fields.keys()
    fixed = template.get("job_configuration", {}).keys()
    template = copy.deepcopy(template)
    pools.complete(template, _own_template(worker), only=ours - fixed)
    return template


def _in_order(config: dict[str, Any], deployment: DeploymentResponse) -> dict[str, Any]:
    """A config in the order of the job's inputs: the server's database keeps none, and `${args}` shows it."""
    properties = (deployment.parameter_openapi_schema or {}).get("properties", {})
    places = {name: schema.get("position", len(properties)) for name, schema in properties.items()}
    return dict(sorted(config.items(), key=lambda item: places.get(item[0], len(places))))
