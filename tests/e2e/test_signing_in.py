"""Tokens: pasted, wrong, running out, forgotten; and whose page it is."""

import asyncio
import time
from typing import Any

import pytest
from playwright.async_api import expect

from tests.chat_client import CHARACTER, Chat
from tests.conftest import Start
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.routes import SESSION, Hold, Late, only
from tests.e2e.scripts import cut, paced, prose
from tests.model_server import ModelServer
from tests.token_provider import SECRET, bearer, token


@pytest.fixture
async def guarded(start: Start) -> Chat:
    return await start(auth="jwt", jwt_secret=SECRET)


@pytest.fixture
async def page(new_page: OpenPage, guarded: Chat, watch: Watch) -> ChatPage:
    """Return the page, opened, of a chatd that asks for tokens."""
    watch.expect("status of 401")
    page = await new_page(url_of(guarded))
    await page.open()
    await expect(page.by("sign-in")).to_be_visible()
    return page


async def signed_in(page: ChatPage, subject: str = "alice", **claims: Any) -> str:
    """Sign in, and return the token."""
    given = token(subject, **claims)
    await page.sign_in(given)
    await expect(page.by("sign-in")).to_be_hidden()
    return given


async def kept(page: ChatPage, storage: str) -> str:
    """Return all that the browser keeps."""
    return str(await page.evaluate(f"JSON.stringify({{...{storage}}})"))


async def test_a_token_is_pasted_and_kept_in_the_tab_alone(page: ChatPage, new_page: OpenPage, guarded: Chat) -> None:
    given = await signed_in(page)
    await page.ask("hello")
    assert given not in page.page.url
    assert given not in await kept(page, "localStorage")
    assert not await page.context.cookies()
    await page.reload()
    await expect(page.messages()).to_have_count(2)
    await expect(page.by("sign-in")).to_be_hidden()
    other = await new_page(url_of(guarded), beside=page)
    await other.open()
    await expect(other.by("sign-in")).to_be_visible()


async def test_a_token_that_is_not_accepted(page: ChatPage) -> None:
    for wrong in ("rubbish", token("alice")[:-4] + "AAAA", token("alice", exp=1)):
        async with page.page.expect_response("**/agent/me"):
            await page.sign_in(wrong)
        await expect(page.by("sign-in").get_by_role("alert")).not_to_be_empty()
        await expect(page.by("sign-in")).to_be_visible()
    assert "rubbish" not in await kept(page, "sessionStorage")
    await signed_in(page)
    await page.ask("hello")


async def test_a_token_that_comes_while_another_one_is_tried_is_tried_too(page: ChatPage) -> None:
    held = Hold()
    await page.page.route("**/agent/me", held, times=1)
    await page.sign_in("rubbish")
    await signed_in(page)
    held.go_on.set()
    await page.ask("hello")


async def test_the_dialog_can_not_be_left(page: ChatPage) -> None:
    await page.page.keyboard.press("Escape")
    await page.page.keyboard.press("Escape")
    await expect(page.by("sign-in")).to_be_visible()
    await signed_in(page)


async def test_a_token_that_ends_in_the_middle_of_an_answer(page: ChatPage, model: ModelServer) -> None:
    text = prose(4000)
    model.play([paced(cut(text, 10), rate=60)])
    await signed_in(page, exp=time.time() + 3)
    await page.send("A long story.")
    await expect(page.by("sign-in")).to_be_visible(timeout=15_000)
    await signed_in(page)
    await page.has_ended(2)
    assert await page.source() == text


async def test_a_token_that_has_ended_before_a_message_is_sent(page: ChatPage, guarded: Chat) -> None:
    await signed_in(page, exp=time.time() + 2)
    await page.page.wait_for_timeout(2500)
    await page.write("hello")
    await page.by("composer").press("Enter", no_wait_after=True)
    await expect(page.by("sign-in")).to_be_visible()
    given = await signed_in(page)
    await page.has_ended(2)
    history = await guarded.call("GET", f"/agent/chat/history/{page.session_id()}", headers=bearer(given))
    assert [message["content"] for message in history["messages"]] == ["hello", "Hello, world."]


async def test_signing_out_leaves_nothing(page: ChatPage) -> None:
    given = await signed_in(page)
    await page.ask("a secret of alice's")
    await page.write("a draft of alice's")
    session = page.session_id()
    await page.by("sign-out").click()
    await expect(page.by("sign-in")).to_be_visible()
    assert session not in page.page.url
    for storage in ("localStorage", "sessionStorage"):
        left = await kept(page, storage)
        assert given not in left
        assert "draft of alice" not in left
    assert "a secret" not in await page.page.content()


async def test_signing_out_waits_for_no_deletion(page: ChatPage, guarded: Chat) -> None:
    given = await signed_in(page)
    await page.ask("hello")
    session = page.session_id()
    await page.delete("hello")
    await expect(page.by("toast")).to_be_visible()
    late = Late()
    await page.page.route(SESSION, only("DELETE", late))
    await page.by("sign-out").click()
    await expect(page.by("sign-in")).to_be_visible()
    async with asyncio.timeout(20):
        await late.has_read.wait()
    await guarded.call("GET", f"/agent/session/{session}", 404, headers=bearer(given))


async def test_the_next_owner_sees_nothing_of_the_one_before(page: ChatPage, watch: Watch) -> None:
    await signed_in(page)
    await page.ask("a secret of alice's")
    session = page.session_id()
    await page.write("a draft of alice's")
    await page.by("sign-out").click()
    await expect(page.by("sign-in")).to_be_visible()
    await signed_in(page, "bob")
    await expect(page.sessions()).to_have_count(0)
    await expect(page.messages()).to_have_count(0)
    await expect(page.by("composer")).to_have_value("")
    watch.expect("status of 404")
    await page.open(session)
    await page.reload()
    await expect(page.messages()).to_have_count(0)
    assert "alice" not in await page.page.content()


async def test_another_owners_token_in_place_of_one_that_ended(page: ChatPage) -> None:
    await signed_in(page, exp=time.time() + 4)
    await page.ask("a secret of alice's")
    await page.write("a draft of alice's")
    await expect(page.by("sign-in")).to_be_visible(timeout=15_000)
    await page.sign_in(token("bob"))
    await expect(page.by("sign-in")).to_be_hidden()
    await expect(page.sessions()).to_have_count(0)
    await expect(page.messages()).to_have_count(0)
    await expect(page.by("composer")).to_have_value("")
    assert "alice" not in await page.page.content()


async def test_a_character_is_chosen_where_there_are_several(page: ChatPage, guarded: Chat) -> None:
    given = await signed_in(page, character_ids=[CHARACTER, 8, 9])
    await expect(page.by("character")).to_be_visible()
    assert await page.by("character").locator("option").all_inner_texts() == [str(CHARACTER), "8", "9"]
    await page.by("character").select_option("8")
    await page.ask("hello")
    session = await guarded.call("GET", f"/agent/session/{page.session_id()}", headers=bearer(given))
    assert session["character_id"] == 8
    await page.reload()
    await expect(page.by("character")).to_have_value("8")
    await page.by("character").select_option("9")
    await page.ask("and again")  # a session keeps its character
    await expect(page.messages()).to_have_count(4)


async def test_the_next_token_may_allow_other_characters(page: ChatPage, guarded: Chat) -> None:
    await signed_in(page, character_ids=[CHARACTER, 8], exp=time.time() + 3)
    await page.by("character").select_option("8")
    await expect(page.by("sign-in")).to_be_visible(timeout=15_000)
    given = await signed_in(page, character_ids=[9, 10])
    assert await page.by("character").locator("option").all_inner_texts() == ["9", "10"]
    await page.ask("hello")
    session = await guarded.call("GET", f"/agent/session/{page.session_id()}", headers=bearer(given))
    assert session["character_id"] == 9


async def test_one_character_is_no_choice(page: ChatPage, guarded: Chat) -> None:
    given = await signed_in(page, character_ids=[CHARACTER])
    await expect(page.by("character")).to_be_hidden()
    await page.ask("hello")
    session = await guarded.call("GET", f"/agent/session/{page.session_id()}", headers=bearer(given))
    assert session["character_id"] == CHARACTER
