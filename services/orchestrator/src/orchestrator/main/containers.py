"""What has to do with the containers of this deployment, and who uses them."""

from dataclasses import dataclass

from orchestrator.clock import SystemClock
from orchestrator.domain.idle import IdleLimits
from orchestrator.flow.adopt import Adopt
from orchestrator.flow.configure import Configure
from orchestrator.flow.container_control import ContainerControl
from orchestrator.flow.disk import DiskWatch
from orchestrator.flow.lease import Lease
from orchestrator.flow.occupancy import Occupancy
from orchestrator.flow.pool import Pool
from orchestrator.flow.reap import Reaper, ReaperParts
from orchestrator.flow.running import RunningTasks
from orchestrator.flow.shares import LeaseShares
from orchestrator.main.allowance import container_limits
from orchestrator.main.outside import Outside
from orchestrator.settings import Settings
from orchestrator.workers.client import HttpWorkers


@dataclass(frozen=True, slots=True)
class Containers:
    """How containers are found, used and given up."""

    pool: Pool
    lease: Lease
    shares: LeaseShares
    running: RunningTasks
    adopt: Adopt
    reaper: Reaper
    control: ContainerControl
    disk: DiskWatch


def make_containers(settings: Settings, outside: Outside) -> Containers:
    """Put them together; nothing is started."""
    metadata, runtime = outside.metadata, outside.runtime
    workers, limits, occupancy = HttpWorkers(), container_limits(settings), Occupancy()
    executor = metadata.identity.executor_id
    pool = Pool(runtime=runtime, workers=workers, limits=limits, size=settings.warm_pool)
    running = RunningTasks()
    shares = LeaseShares(metadata.leases, running.stopping)
    lease = Lease(
        runtime=runtime,
        workers=workers,
        tasks=metadata.patient_tasks,
        limits=limits,
        leases=metadata.leases,
        shares=shares,
        occupancy=occupancy,
        bind=pool.bind,
        own_limits=Configure(metadata.patient_settings, outside.allowance, outside.secrets).limits,
    )
    adopt = Adopt(
        runtime=runtime,
        workers=workers,
        tasks=metadata.tasks,
        occupancy=occupancy,
        leases=metadata.holders,
        executor=executor,
    )
    parts = ReaperParts(
        runtime, occupancy, metadata.tasks, metadata.holders, SystemClock(), executor
    )
    reaper = Reaper(parts, _idle(settings))
    control = ContainerControl(runtime, metadata.tasks, occupancy)
    configure = Configure(metadata.settings, outside.allowance, outside.secrets)
    disk = DiskWatch(runtime, limits, configure.limits, SystemClock())
    return Containers(pool, lease, shares, running, adopt, reaper, control, disk)


def _idle(settings: Settings) -> IdleLimits:
    return IdleLimits(
        pause_seconds=settings.idle_pause_seconds,
        stop_seconds=settings.idle_stop_seconds,
        remove_seconds=settings.idle_remove_seconds,
    )
