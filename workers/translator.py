"""A LibreTranslate-compatible service: one text into one language.

It is somebody else's program: what it answers is checked before anybody reads it, and an answer of any size or slowness
costs a bounded amount of memory and time.
"""

from __future__ import annotations

import asyncio
import json
import re
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

LARGEST_ANSWER = 1 << 20

# A translation is longer than its original, not many times so.
_LONGEST = 64 * 1024

# What the text of a message may not hold either; a line break of another system is one of ours.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TranslatorError(Exception):
    """There is no translation; it may be there later. The text is for logs and holds nothing of the message."""


class TranslatorRefused(TranslatorError):
    """The service does not translate this text, or into this language, and never will."""


class Translator:
    """A client of the service at `url`; a call takes at most `timeout` seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url.rstrip("/") + "/translate"
        self._timeout = timeout
        self._http = httpx.AsyncClient(
            timeout=timeout,
            # No proxy, no login from the environment, no cookies, no way to elsewhere.
            trust_env=False,
            follow_redirects=False,
            # What is small on the way is not to be large here.
            headers={"Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def translate(self, text: str, language: str) -> str:
        """Return a text in a language, whatever language it is in. Raises TranslatorError, TranslatorRefused."""
        try:
            # httpx's own timeouts are of each step; a service that sends a byte now and then would have no end.
            async with asyncio.timeout(self._timeout):
                status, body = await self._ask({"q": text, "source": "auto", "target": language, "format": "text"})
        except TimeoutError:
            raise TranslatorError("the translator has not answered in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TranslatorError(f"the translator cannot be asked: {type(error).__name__}") from None
        if status == httpx.codes.BAD_REQUEST:
            raise TranslatorRefused("the translator refused with 400")
        if status != httpx.codes.OK:
            raise TranslatorError(f"the translator answered with {status}")
        return _read(body)

    async def _ask(self, body: dict[str, str]) -> tuple[int, bytes]:
        async with self._http.stream("POST", self._url, json=body) as response:
            found = b""
            async for part in response.aiter_raw():
                found += part
                if len(found) > LARGEST_ANSWER:
                    raise TranslatorError("the translator's answer is too large")
            return response.status_code, found


def _read(body: bytes) -> str:
    try:
        answer = json.loads(body)
        text = answer["translatedText"].replace("\r\n", "\n")
        size = len(text.encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TranslatorError("the translator's answer is none of the contract") from None
    if not text.strip() or size > _LONGEST or _CONTROL.search(text):
        raise TranslatorError("the translator's answer is no text to be read")
    return str(text)
