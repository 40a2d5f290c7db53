"""Work for clients that have gone is stopped."""

import asyncio
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """ASGI middleware that cancels the application once the client has sent its body and closed the connection.

    While the body is read, the application itself is told of a disconnect; afterwards it would not ask any more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        application = cast(asyncio.Task[None], asyncio.current_task())
        watcher: asyncio.Task[Message] | None = None
        is_answered = is_gone = False

        async def watch() -> Message:
            nonlocal is_gone
            message = await receive()  # a disconnect, also where the answer is complete
            if not is_answered:
                is_gone = True
                application.cancel()
            return message

        async def watched_receive() -> Message:
            nonlocal watcher
            if watcher is not None:
                return await asyncio.shield(watcher)
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watcher = asyncio.create_task(watch())
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
            if watcher is not None:
                watcher.cancel()
