"""Reports as a health service sends them: waves of cases, corrections and repetitions, and now and then nonsense."""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import orjson

Key: TypeAlias = tuple[datetime.date, str, str]
"""Date, city and region: the key of a row."""

_REGIONS = {
    "Lombardia": "Milano Bergamo Brescia Como Cremona Lecco Lodi Mantova Monza Pavia Sondrio Varese",
    "Veneto": "Venezia Verona Vicenza Padova Treviso Rovigo Belluno",
    "Piemonte": "Torino Alessandria Asti Biella Cuneo Novara Verbania Vercelli",
    "Emilia-Romagna": "Bologna Ferrara Forlì Modena Parma Piacenza Ravenna Reggio Rimini",
    "Toscana": "Firenze Arezzo Grosseto Livorno Lucca Massa Pisa Pistoia Prato Siena",
    "Liguria": "Genova Imperia Savona Spezia",
    "Marche": "Ancona Ascoli Fermo Macerata Pesaro",
    "Umbria": "Perugia Terni",
    "Lazio": "Roma Frosinone Latina Rieti Viterbo",
    "Abruzzo": "L'Aquila Chieti Pescara Teramo",
    "Campania": "Napoli Avellino Benevento Caserta Salerno",
    "Puglia": "Bari Barletta Brindisi Foggia Lecce Taranto",
    "Calabria": "Catanzaro Cosenza Crotone Vibo",
    "Sicilia": "Palermo Agrigento Caltanissetta Catania Enna Messina Ragusa Siracusa Trapani",
    "Sardegna": "Cagliari Nuoro Oristano Sassari",
    "Friuli": "Trieste Gorizia Pordenone Udine",
}
PLACES = [(city, region) for region, cities in _REGIONS.items() for city in cities.split()]
_FIRST_DAY = datetime.date(2020, 2, 24)


class Report(NamedTuple):
    """A message to send: either a row comes of it or a dead letter."""

    key: bytes
    """The key of the message, by which Kafka chooses the partition."""
    value: bytes | None
    row: tuple[Key, int] | None
    """Key and cases; None for one that must become a dead letter."""
    fault: str | None
    """A text that the reason of the dead letter contains."""


def reports(count: int, *, seed: int = 1, repeated: float = 0.2, poison: float = 0.01) -> Iterator[Report]:
    """Yield as many reports in the order to send them; of two for one key, the later one stands.

    `repeated` is the share of reports for a key that was reported before, `poison` that of reports without a row.
    """
    chance = random.Random(seed)
    keys: list[Key] = []
    for _ in range(count):
        lot = chance.random()
        if lot < poison or (not keys and lot < poison + repeated):
            yield _poison(chance)
            continue
        if lot < poison + repeated:
            # Half of them soon after, in the same batch perhaps, the others at any time.
            key = chance.choice(keys[-100:] if chance.random() < 0.5 else keys)
        else:
            keys.append(key := _nth_key(len(keys)))
        cases = _cases(key, chance)
        yield Report(_message_key(key), orjson.dumps(_content(key, cases)), (key, cases), None)


def _nth_key(number: int) -> Key:
    return (_FIRST_DAY + datetime.timedelta(days=number // len(PLACES)), *PLACES[number % len(PLACES)])


def _cases(key: Key, chance: random.Random) -> int:
    """Return a number that rises and falls over the days, and is never the same for long."""
    day = (key[0] - _FIRST_DAY).days
    wave = 1.1 + math.sin(day / 40) + 0.3 * math.sin(day * 2 * math.pi / 7)
    return int(abs(wave) * 400 * chance.lognormvariate(0, 0.5))


def _content(key: Key, cases: object) -> dict[str, object]:
    return {"date": key[0], "city": key[1], "region": key[2], "cases": cases}


def _message_key(key: Key) -> bytes:
    return "|".join(map(str, key)).encode()


def _poison(chance: random.Random) -> Report:
    key = _nth_key(chance.randrange(1000))
    value, fault = chance.choice(_FAULTS)(_content(key, _cases(key, chance)))
    return Report(_message_key(key), value, None, fault)


# Each makes nonsense of a report, and names what its dead letter must say.
_FAULTS: list[Callable[[dict[str, object]], tuple[bytes | None, str]]] = [
    lambda _: (None, "value"),
    lambda _: (b"", "decoded"),
    lambda report: (b"\xff\xfe" + orjson.dumps(report), "decoded"),
    lambda report: (orjson.dumps(report)[:-5], "decoded"),
    lambda report: (orjson.dumps([report]), "object"),
    lambda report: (orjson.dumps({name: report[name] for name in ("date", "city", "region")}), "cases"),
    lambda report: (orjson.dumps(report | {"cases": "many"}), "cases"),
    lambda report: (orjson.dumps(report | {"cases": -1}), "cases"),
    lambda report: (orjson.dumps(report | {"cases": 1.5}), "cases"),
    lambda report: (orjson.dumps(report | {"date": "2021-02-30"}), "date"),
    lambda report: (orjson.dumps(report | {"date": None}), "date"),
    lambda report: (orjson.dumps(report | {"city": ""}), "city"),
    lambda report: (orjson.dumps(report | {"region": 7}), "region"),
    lambda report: (orjson.dumps(report | {"city": "Mila\0no"}), "city"),
    # Valid for the handler; the database refuses them, by a constraint and by the type.
    lambda report: (orjson.dumps(report | {"cases": 10_000_001}), "covid_cases_cases_check"),
    lambda report: (orjson.dumps(report | {"cases": 2**31}), "cases"),
]
