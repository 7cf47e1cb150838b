"""What the API offers."""

from orchestrator.api.services import Services
from orchestrator.domain.budget import Budget
from orchestrator.domain.offer import Offer
from orchestrator.flow.accept import Accept
from orchestrator.flow.attach import Attach
from orchestrator.flow.compare import Compare
from orchestrator.flow.configure import Configure
from orchestrator.flow.continuation import Continue, Say
from orchestrator.flow.fork import Fork
from orchestrator.flow.publish import Publish
from orchestrator.flow.submit import Submit
from orchestrator.flow.uploads import Uploads
from orchestrator.gateway.branches import GitBranches
from orchestrator.gateway.forges.choice import HttpForges
from orchestrator.main.containers import Containers
from orchestrator.main.outside import Outside
from orchestrator.main.work import Work
from orchestrator.settings import Settings
from orchestrator.storage.postgres.publications import PostgresPublications
from orchestrator.version import VERSION


def make_services(
    settings: Settings, outside: Outside, containers: Containers, work: Work
) -> Services:
    """Put together what the routes work with."""
    metadata = outside.metadata
    tasks = metadata.tasks
    accept = Accept(
        inputs=work.inputs,
        tasks=tasks,
        events=metadata.events,
        engine=work.engine,
        runtime=outside.runtime_info.name,
    )
    attach = Attach(outside.objects, outside.repositories)
    offer = Offer(
        Budget(settings.max_steps, settings.max_tokens, settings.max_seconds),
        settings.llm_model,
        settings.llm_models,
    )
    go_on = Continue(tasks=tasks, attach=attach, accept=accept, offer=offer)
    return Services(
        version=VERSION,
        executor_id=metadata.identity.executor_id,
        submit=Submit(
            repositories=outside.repositories,
            attach=attach,
            accept=accept,
            go_on=go_on,
            offer=offer,
        ),
        say=Say(tasks, go_on),
        fork=Fork(tasks=tasks, recall=work.recall, accept=accept, offer=offer),
        compare=Compare(tasks, containers.lease, work.require_tree),
        publish=_publish(settings, outside),
        configure=Configure(metadata.settings, outside.allowance, outside.secrets),
        running=containers.running,
        uploads=Uploads(outside.objects),
        tasks=tasks,
        events=metadata.events,
        live_text=metadata.live_text,
        containers=containers.control,
        runtime_info=outside.runtime_info,
        model=outside.model_info,
        max_query_chars=settings.max_query_chars,
        max_file_bytes=settings.max_file_bytes,
    )


def _publish(settings: Settings, outside: Outside) -> Publish:
    branches = GitBranches(outside.repositories, settings.data_dir, settings.git_timeout_seconds)
    return Publish(
        tasks=outside.metadata.tasks,
        publications=PostgresPublications(outside.metadata.database),
        branches=branches,
        forges=HttpForges(outside.forge_http, outside.credentials),
        author=settings.publish_author,
    )
