"""Stops the work for clients that have disconnected."""

import asyncio
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Most requests are answered sooner. Watching their connections would take longer than what it may save.
WATCHED_AFTER_SECONDS = 0.05


class CancelOnDisconnect:
    """ASGI middleware that cancels the application when the client closes the connection after it sent its body.

    While the body is being read, the application sees a disconnect itself. Afterwards it no longer looks:
    the middleware watches the connection from WATCHED_AFTER_SECONDS after the body until the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        application = cast(asyncio.Task[None], asyncio.current_task())
        watcher: asyncio.Task[Message] | None = None
        timer: asyncio.TimerHandle | None = None
        is_answered = is_gone = False

        async def watch() -> Message:
            nonlocal is_gone
            message = await receive()  # a disconnect, or the end of the response
            if not is_answered:
                is_gone = True
                application.cancel()
            return message

        def start_watching() -> asyncio.Task[Message]:
            nonlocal watcher
            watcher = watcher or asyncio.create_task(watch())
            return watcher

        async def watched_receive() -> Message:
            nonlocal timer
            if timer is not None:
                return await asyncio.shield(start_watching())
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_SECONDS, start_watching)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal is_answered
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        except asyncio.CancelledError:
            if not is_gone:
                raise
            application.uncancel()
        finally:
            if timer is not None:
                timer.cancel()
            if watcher is not None:
                watcher.cancel()
