"""Which characters a caller may speak for."""

from aiohttp import web

from chatd.errors import NotYourCharacter
from chatd.keys import CALLER, CONFIG


def check_character(request: web.Request, character_id: int, session_id: str | None = None) -> int:
    """Return the character that a request speaks for; raises CharacterForbidden for one that its token does not list.

    A token that lists none speaks for any, unless the settings require one that does: then for none but that of a
    session of its own, which is for the query to check.
    """
    characters = request[CALLER].characters
    if characters is None and not request.app[CONFIG].require_character:
        return character_id
    if character_id not in (characters or ()) and (characters or session_id is None):
        raise NotYourCharacter
    return character_id
