"""Handlers of the reader's."""

from redis_worker import KafkaMessage, Message


async def remind(message: Message) -> None:
    print(message.data)


def order(message: KafkaMessage) -> None:
    print(message.data)


handle = order
