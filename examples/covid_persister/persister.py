"""The persister itself: a report of Kafka, checked, becomes a row of `covid_cases`."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, TypeAlias

import msgspec

from redis_worker import KafkaMessage
from redis_worker.postgres import Lookup

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]


class CaseReport(msgspec.Struct, frozen=True):
    """The content of a message. msgspec names the field that is wrong."""

    date: datetime.date
    city: Name
    region: Name
    cases: Annotated[int, msgspec.Meta(ge=0)]


cities = Lookup("select name, id from cities where name = any($1)", ttl=600, max_size=10_000)
regions = Lookup("select name, id from regions where name = any($1)", ttl=600, max_size=1_000)


async def to_rows(messages: list[KafkaMessage]) -> list[dict[str, Any]]:
    """Return a row for each report, in their order."""
    reports: list[CaseReport] = [message.data for message in messages]
    city_ids = await cities.get({report.city for report in reports})
    region_ids = await regions.get({report.region for report in reports})
    return [
        {
            "date": report.date,
            "city_id": city_ids[report.city],
            "region_id": region_ids[report.region],
            "cases": report.cases,
            "report": message.offset,
        }
        for report, message in zip(reports, messages, strict=True)
    ]
