"""When a Dataset's source is read again by itself.

The next time is latched in status, so that a pass decides by the clock alone: once it has come, the newest time by the
schedule is what the source is read for. Times that came while nobody looked, or while a reading went on, are one.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from finetune_operator.api.dataset import Dataset, Refresh
from finetune_operator.api.datasetstatus import RefreshStatus

REFRESHED = "Refreshed"


def fault_in(refresh: Refresh) -> str | None:
    """What is wrong with a schedule."""
    try:
        zone = ZoneInfo(refresh.time_zone)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        return _zone_fault(refresh)
    except KeyError:
        return _zone_fault(refresh)
    try:
        next(CronSim(refresh.schedule, datetime(2000, 1, 1, tzinfo=zone)))
    except (CronSimError, StopIteration) as error:
        return (
            f"spec.refresh.schedule: {refresh.schedule!r} is no schedule ({str(error) or 'it never comes'}); use five "
            "fields as in cron, such as '0 3 * * 0'"
        )
    return None


def _zone_fault(refresh: Refresh) -> str:
    return f"spec.refresh.timeZone: {refresh.time_zone!r} is no time zone; use a name such as Europe/Berlin"


def state_at(dataset: Dataset, now: datetime) -> RefreshStatus | None:
    """What the source is to be read for at a time, and when next."""
    refresh, revision, known = dataset.spec.refresh, dataset.status.revision, dataset.status.refresh
    if refresh is None or revision is None:
        return None
    schedule = f"{refresh.schedule} {refresh.time_zone}"
    latched = known.scheduled_for if known else revision.scheduled_for
    if known is None or known.schedule != schedule or known.next_at is None:
        failure = known.failure if known else None
        return RefreshStatus(schedule=schedule, scheduled_for=latched, next_at=_next(refresh, now), failure=failure)
    is_reading = latched != revision.scheduled_for and known.failure is None
    if now < known.next_at or is_reading:
        return known
    return RefreshStatus(schedule=schedule, scheduled_for=_newest(refresh, now), next_at=_next(refresh, now))


def _next(refresh: Refresh, now: datetime) -> datetime:
    return next(CronSim(refresh.schedule, now.astimezone(ZoneInfo(refresh.time_zone)))).astimezone(UTC)


def _newest(refresh: Refresh, now: datetime) -> datetime:
    """The last time by the schedule that has come."""
    local = now.astimezone(ZoneInfo(refresh.time_zone)).replace(second=59, microsecond=0)
    return next(CronSim(refresh.schedule, local, reverse=True)).astimezone(UTC)
