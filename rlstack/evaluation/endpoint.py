"""A chat model behind an OpenAI-compatible endpoint, asked one question at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from rlstack.errors import ConfigError
from rlstack.urls import secret_part, without_secrets

PASSING = (408, 409, 425, 429)  # and 5xx: worth another attempt
MAX_WAIT_S = 60.0


class EndpointError(RuntimeError):
    """The endpoint did not answer, or not as such endpoints do."""


class Endpoint:
    """Sends nothing but the questions, and the key if one is given. To be closed by `close`."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None,
        temperature: float,
        max_tokens: int,
        timeout_s: float,
        max_attempts: int,
    ) -> None:
        """`url` is the endpoint's base, like http://localhost:8000/v1."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(
                f"--endpoint {without_secrets(url)}: a URL like http://localhost:8000/v1 is accepted"
            )
        if (part := secret_part(url)) is not None:
            raise ConfigError(
                f"--endpoint {without_secrets(url)}: a URL without {part} is accepted, for it is shown; give "
                "the key in the environment variable that --api-key-env names"
            )
        self._url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._settings = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # No limit to the connections: the caller sets how many questions are asked at the same time.
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout_s, limits=httpx.Limits())
        self._max_attempts = max_attempts

    async def ask(self, question: str) -> str:
        """The answer to `question`; what passes by itself is tried again, up to `max_attempts` times.

        Raises:
            ConfigError: the endpoint refuses such requests.
            EndpointError: no answer after the last attempt.
        """
        body = {**self._settings, "messages": [{"role": "user", "content": question}]}
        for attempt in range(1, self._max_attempts + 1):
            after = None
            try:
                response = await self._client.post(self._url, json=body)
                if response.status_code == 200:
                    return _content(response.json())
                trouble = f"status {response.status_code}: {response.text[:200].strip()}"
                if response.status_code not in PASSING and response.status_code < 500:
                    raise ConfigError(f"--endpoint: {self._url} answered with {trouble}; correct the request")
                after = response.headers.get("Retry-After")
            except ConfigError:
                raise
            except (httpx.TransportError, ValueError) as error:
                trouble = f"{type(error).__name__}: {error}"
            if attempt < self._max_attempts:
                await asyncio.sleep(wait_s(attempt, after))
        raise EndpointError(f"{self._url}: no answer after {self._max_attempts} attempts; {trouble}")

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()


def wait_s(attempt: int, retry_after: str | None) -> float:
    """Seconds before the next attempt: what the endpoint asks for, or 1, 2, 4, ..., MAX_WAIT_S at most."""
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else 2.0 ** (attempt - 1)
    return min(asked, MAX_WAIT_S)


def _content(reply: Any) -> str:
    try:
        content = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"not the reply of a chat endpoint: {str(reply)[:200]}") from None
    return content or ""
