"""What the Hub refuses, as one line that says the next step. No text of a response gets into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.retry import TRANSIENT_STATUS, TransientError, UnreachableError, wait_told
from gatenorm_stream.sources.hub.spelling import similar_repository


@contextmanager
def hub_errors(address: HubAddress, *, logged_in: bool) -> Iterator[None]:
    """Turns the errors of huggingface_hub and its client into HubError, or TransientError for what may pass."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub import errors as hf

    page = f"{constants.ENDPOINT}/{address.repository}"
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
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
        raise HubError(f"HF_ENDPOINT is {constants.ENDPOINT!r}; begin it with https:// or http://") from error
    except httpx2.TransportError as error:
        raise UnreachableError(f"{constants.ENDPOINT} is not reached ({type(error).__name__})") from error
