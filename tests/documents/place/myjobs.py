"""A processor of the reader's."""

from redis_worker import processor


@processor(execution="thread", timeout=30)
def resize(arguments: list[object]) -> dict[str, object]:
    path, width = arguments
    return {"path": path, "width": width}
