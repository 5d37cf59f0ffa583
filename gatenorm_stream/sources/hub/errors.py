"""What the Hub refuses, as one line that says the next step. No text of a response gets into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.guard import endpoint_shown
from gatenorm_stream.sources.hub.retry import TRANSIENT_STATUS, TransientError, UnreachableError, wait_told
from gatenorm_stream.sources.hub.spelling import similar_repository

if TYPE_CHECKING:
    import httpx2


def raise_for_status(response: httpx2.Response) -> None:
    """As huggingface_hub does, which trips over the body of an error that is no mapping."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils._http import hf_raise_for_status

    try:
        hf_raise_for_status(response)
    except HfHubHTTPError:
        raise
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        if response.status_code in TRANSIENT_STATUS:
            raise TransientError(f"the Hub answered {response.status_code}") from error
        raise HubError(
            f"{endpoint_shown()} answered {response.status_code}, as no Hub does; check HF_ENDPOINT"
        ) from error


@contextmanager
def hub_errors(address: HubAddress, *, logged_in: bool) -> Iterator[None]:
    """Turns the errors of huggingface_hub and its client into HubError, or TransientError for what may pass."""
    import httpx2
    from huggingface_hub import errors as hf

    page = f"{endpoint_shown()}/{address.repository}"
    try:
        yield
    except hf.GatedRepoError as error:
        step = (
            f"accept its licence at {page} with the account of your token"
            if logged_in
            else f"accept its licence at {page}, then log in with `hf auth login` or set HF_TOKEN"
        )
        raise HubError(f"{address.repository} is gated: {step}") from error
    except hf.RevisionNotFoundError as error:
        raise HubError(
            f"{address.repository} has no revision {address.revision}; give a branch, tag or commit of {page}"
        ) from error
    except hf.RepositoryNotFoundError as error:
        step = (
            "check the spelling, and that your token may read it"
            if logged_in
            else "check the spelling; if it is private, log in with `hf auth login` or set HF_TOKEN"
        )
        meant = similar_repository(address.repository)
        step += f"; did you mean {meant}?" if meant else ""
        raise HubError(f"{page} is not there, or private: {step}") from error
    except hf.EntryNotFoundError as error:
        raise HubError(f"a file of {address} is not there any more; run again") from error
    except hf.OfflineModeIsEnabled as error:
        raise HubError(
            f"{address} is not whole in the Hub cache, and HF_HUB_OFFLINE is set; unset it, or run "
            f"`hf download {address.repository}` where there is a network"
        ) from error
    except hf.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in TRANSIENT_STATUS:
            raise TransientError(f"the Hub answered {status}", wait_told(status, error.response.headers)) from error
        if status == 401:
            raise HubError("the Hub does not accept your token; log in anew with `hf auth login`") from error
        if status == 403:
            raise HubError(f"your token may not read {address.repository}; use one that may") from error
        raise HubError(f"the Hub answered {status} for {address}; check {page}") from error
    except httpx2.UnsupportedProtocol as error:
        raise HubError(f"HF_ENDPOINT is {endpoint_shown()!r}; begin it with https:// or http://") from error
    except httpx2.TooManyRedirects as error:
        raise HubError(f"{endpoint_shown()} redirects in a circle; check HF_ENDPOINT") from error
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise HubError(f"{endpoint_shown()}, or where it leads, is no address; check HF_ENDPOINT") from error
    except httpx2.TransportError as error:
        raise UnreachableError(f"{endpoint_shown()} is not reached ({type(error).__name__})") from error
