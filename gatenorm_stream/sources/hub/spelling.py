"""The repository that someone may have meant, of those that the Hub lists."""

from __future__ import annotations

from gatenorm_stream.sources.hub.guard import ask, hub_headers, read_answer
from gatenorm_stream.spelling import similar

SECONDS = 5
LISTED = 1000


def similar_repository(repository: str) -> str | None:
    """Asks for the owner's models, then for models of that name anywhere; None too if the Hub does not answer."""
    owner, _, name = repository.partition("/")
    if found := similar(name, [other.partition("/")[2] for other in _listed({"author": owner})]):
        return f"{owner}/{found}"
    return similar(repository, _listed({"search": name}))


def _listed(query: dict[str, str]) -> list[str]:
    from huggingface_hub import constants

    try:
        answer = ask(f"{constants.ENDPOINT}/api/models", hub_headers(), {**query, "limit": LISTED}, seconds=SECONDS)
        return [str(model["id"]) for model in read_answer(answer.content)] if answer.status_code == 200 else []
    except Exception:  # a guess must not hide the error that it was to explain
        return []
