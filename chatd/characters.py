"""Which characters a caller may speak for."""

from aiohttp import web

from chatd.errors import NotYourCharacter
from chatd.keys import CALLER, CONFIG


def check_character(request: web.Request, character_id: int, session_id: str | None = None) -> None:
    """Raise NotYourCharacter unless the token may speak for this character.

    A token without a list speaks for any, unless the settings require one: then for none but that of a session of
    its own, which is for the query to check.
    """
    characters = request[CALLER].characters
    if characters is None and not request.app[CONFIG].require_character:
        return
    if character_id not in (characters or ()) and (characters is not None or session_id is None):
        raise NotYourCharacter
