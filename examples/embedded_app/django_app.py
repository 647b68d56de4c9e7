"""The shop with Django, in one file: uvicorn examples.embedded_app.django_app:application"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from examples.embedded_app.asgi_lifespan import with_lifespan
from examples.embedded_app.shop import FILE, new_client
from redis_worker import Supervisor


@asynccontextmanager
async def lifespan() -> AsyncIterator[dict[str, Any]]:
    """Run the workers as long as the application."""
    supervisor = Supervisor.from_file(FILE)
    async with new_client(supervisor) as client, supervisor:
        yield {"supervisor": supervisor, "client": client}


async def order(request: HttpRequest) -> JsonResponse:
    """Price an order in the pool."""
    items = json.loads(request.body)["items"]
    return JsonResponse({"cents": await request.scope["state"]["client"].run([items, 0], timeout=30)})


async def parts(request: HttpRequest) -> JsonResponse:
    """Return the status of each part of the file."""
    return JsonResponse([part._asdict() for part in request.scope["state"]["supervisor"].parts()], safe=False)


urlpatterns = [path("orders", order), path("parts", parts)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "127.0.0.1"])
application = with_lifespan(get_asgi_application(), lifespan)
