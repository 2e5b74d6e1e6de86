"""The list of sessions."""

import asyncio
import json

import pytest
from playwright.async_api import Route, expect

from tests.chat_client import Chat
from tests.e2e.chat_page import ChatPage
from tests.e2e.conftest import OpenPage, Watch, url_of
from tests.e2e.routes import SESSION, SESSIONS, Hold, Late, only, problem, refuse
from tests.e2e.scripts import Held
from tests.model_server import ModelServer

TITLES = ("Tides and currents", "Étude in C", "a plan for Thursday")


async def rows(chat: Chat, session: str) -> int:
    """Count what the database holds of a session."""
    count = "SELECT count(*) FROM agent_messages WHERE session_id = $1"
    async with chat.turns.repo.connection() as conn:
        return int(await conn.fetchval(count, session))


async def has_looked(page: ChatPage) -> None:
    """Wait until the page has read the list, which it does every twelve seconds, and goes on looking at the session."""
    async with page.page.expect_request(SESSIONS, timeout=60_000) as read:
        pass
    await (await read.value).response()
    async with page.page.expect_request(SESSION, timeout=30_000):
        pass


async def is_deleted(chat: Chat, session: str) -> None:
    """Wait until nothing of a session is left."""
    async with asyncio.timeout(30):
        while await rows(chat, session):
            await asyncio.sleep(0.05)


@pytest.fixture
async def listed(chat: Chat, new_page: OpenPage) -> ChatPage:
    """Return the page of a chatd with three sessions, each with an answer."""
    for title in TITLES:
        session = await chat.session(title=title)
        await chat.post(f"Tell me of {title}", session["session_id"])
    page = await new_page(url_of(chat))
    await page.open()
    await expect(page.sessions()).to_have_count(3)
    return page


async def test_they_are_listed_latest_first_with_their_last_activity(listed: ChatPage) -> None:
    titles = await listed.sessions().locator("a").all_inner_texts()
    assert [text.split("\n")[0] for text in titles] == list(reversed(TITLES))
    for time in await listed.sessions().locator("time").all():
        assert await time.get_attribute("datetime")
        assert await time.inner_text()


async def test_one_is_opened_and_stands_in_the_url(listed: ChatPage) -> None:
    for title in TITLES[:2]:
        await listed.open_session(title)
        await expect(listed.messages()).to_have_count(2)
        await expect(listed.body(listed.messages("user"))).to_have_text(f"Tell me of {title}")
        current = listed.by("sessions").locator("a[aria-current=page]")
        await expect(current).to_have_count(1)
        await expect(current).to_contain_text(title)
        assert listed.session_id().startswith("sess-")
    await listed.page.go_back()
    await expect(listed.by("session-title")).to_have_text(TITLES[0])
    await listed.reload()
    await expect(listed.by("session-title")).to_have_text(TITLES[0])
    await expect(listed.messages()).to_have_count(2)


async def test_titles_are_searched(listed: ChatPage) -> None:
    await listed.search("étude")
    await expect(listed.sessions()).to_have_count(1)
    await expect(listed.session("Étude in C")).to_be_visible()
    await listed.search("THURSDAY")
    await expect(listed.session("a plan for Thursday")).to_be_visible()
    await expect(listed.sessions()).to_have_count(1)
    await listed.search("nothing of this kind")
    await expect(listed.sessions()).to_have_count(0)
    await listed.search("")
    await expect(listed.sessions()).to_have_count(3)


async def test_a_new_one_gets_a_title_and_the_first_place(listed: ChatPage, chat: Chat) -> None:
    await listed.open_session(TITLES[0])
    await listed.start_new()
    await expect(listed.messages()).to_have_count(0)
    async with listed.page.expect_response(lambda response: response.request.method == "PATCH"):
        await listed.ask("What is a spring tide?")
    await expect(listed.sessions()).to_have_count(4)
    await expect(listed.sessions().first).to_contain_text("What is a spring tide?")
    await expect(listed.by("session-title")).to_have_text("What is a spring tide?")
    session = await chat.call("GET", f"/agent/session/{listed.session_id()}")
    assert session["title"] == "What is a spring tide?"


async def test_a_new_ones_title_is_shown_before_it_is_saved(page: ChatPage) -> None:
    """... and stays, whatever of the list and of the session is read until then."""
    saving = Hold()
    await page.page.route(SESSION, only("PATCH", saving))
    await page.ask("hello")
    await expect(page.session("hello")).to_be_visible()
    await has_looked(page)
    await expect(page.session("hello")).to_be_visible()
    await expect(page.session("Untitled")).to_have_count(0)
    await expect(page.by("session-title")).to_have_text("hello")
    saving.go_on.set()


async def test_a_new_ones_title_that_could_not_be_saved_is_saved_by_the_next_page(
    page: ChatPage, chat: Chat, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    await page.page.route(SESSION, only("PATCH", refuse))
    async with page.page.expect_event("requestfailed", lambda request: request.method == "PATCH"):
        await page.ask("hello")
    await page.reload()
    await page.page.unroute(SESSION)
    async with asyncio.timeout(30):
        while (await chat.call("GET", f"/agent/session/{page.session_id()}"))["title"] != "hello":
            await asyncio.sleep(0.05)
    await expect(page.session("hello")).to_be_visible()


async def test_what_was_read_before_a_title_was_saved_does_not_undo_it(listed: ChatPage, chat: Chat) -> None:
    await listed.open_session(TITLES[1])
    late = Late()
    await listed.page.route(SESSIONS, late)
    await listed.send("hello")
    async with asyncio.timeout(20):
        await late.has_read.wait()
    async with listed.page.expect_response(lambda response: response.request.method == "PATCH"):
        await listed.rename(TITLES[0], "Currents")
    late.go_on.set()
    await listed.page.wait_for_timeout(1000)
    await expect(listed.session("Currents")).to_be_visible()
    await expect(listed.session(TITLES[0])).to_have_count(0)


async def test_the_list_is_read_while_a_look_at_the_open_one_hangs(listed: ChatPage, chat: Chat) -> None:
    held = Hold()
    await listed.open_session(TITLES[0])
    await expect(listed.messages()).to_have_count(2)
    await listed.page.route("**/agent/session/*", held)
    async with listed.page.expect_request("**/agent/session/*"):
        pass
    await chat.session(title="from elsewhere")
    await expect(listed.session("from elsewhere")).to_be_visible(timeout=20_000)
    held.go_on.set()


async def test_one_is_renamed(listed: ChatPage, chat: Chat) -> None:
    await listed.open_session(TITLES[0])
    await listed.rename(TITLES[0], "Currents")
    await expect(listed.by("session-title")).to_have_text("Currents")
    await expect(listed.session("Currents")).to_be_visible()
    session = await chat.call("GET", f"/agent/session/{listed.session_id()}")
    assert session["title"] == "Currents"


async def test_one_is_renamed_while_its_answer_is_being_written(page: ChatPage, model: ModelServer) -> None:
    model.play([Held("Hello, ", "world.")])
    await page.send("hello")
    await page.is_answering()
    await page.rename("hello", "Greetings")
    await expect(page.by("session-title")).to_have_text("Greetings")


async def test_a_title_that_is_refused_is_taken_back(listed: ChatPage, watch: Watch) -> None:
    watch.expect("status of 403")
    await listed.open_session(TITLES[0])
    saving = Hold(problem(403, code="character_forbidden", detail="You may not speak for this character."))
    await listed.page.route(SESSION, only("PATCH", saving))
    await listed.page.route(SESSIONS, Hold())  # which would tell of the title before
    await listed.rename(TITLES[0], "Currents")
    await expect(listed.by("session-title")).to_have_text("Currents")
    saving.go_on.set()
    await expect(listed.by("session-title")).to_have_text(TITLES[0])
    await expect(listed.session(TITLES[0])).to_be_visible()
    await expect(listed.page.get_by_role("alert").filter(has_text="may not speak")).to_be_visible()


async def test_the_last_title_is_kept(listed: ChatPage, chat: Chat, watch: Watch) -> None:
    """What could not be saved is tried less and less often: the title before must not be what is saved at last."""
    watch.expect("Failed to load resource")
    session_id = (await chat.call("GET", "/agent/sessions"))["sessions"][-1]["session_id"]
    tried: list[str] = []
    away = True

    async def lose(route: Route) -> None:
        if route.request.method == "PATCH":
            tried.append(json.loads(route.request.post_data or "")["title"])
        await (route.abort() if away else route.continue_())

    await listed.page.route(SESSION, lose)
    await listed.rename(TITLES[0], "the first")
    async with asyncio.timeout(15):
        while len(tried) < 2:  # the next try is in 2 s
            await asyncio.sleep(0.05)
    await listed.rename("the first", "the second")
    await expect(listed.session("the second")).to_be_visible()
    away = False
    async with asyncio.timeout(15):
        while (await chat.call("GET", f"/agent/session/{session_id}"))["title"] != "the second":
            await asyncio.sleep(0.05)
    await asyncio.sleep(4)  # longer than one that went on with the first would wait
    assert (await chat.call("GET", f"/agent/session/{session_id}"))["title"] == "the second"
    assert tried[-1] == "the second"


async def test_a_title_that_was_given_is_kept(page: ChatPage, chat: Chat, watch: Watch) -> None:
    """A new session may be there, and be named, before its page knows that its first message has arrived."""
    watch.expect("Failed to load resource")

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.page.route("**/agent/chat/stream", lose)
    await page.send("hello")
    await page.has_state("reconnecting")
    (made,) = (await chat.call("GET", "/agent/sessions"))["sessions"]
    await chat.call("PATCH", f"/agent/session/{made['session_id']}", json={"title": "Mine"})
    await page.page.unroute("**/agent/chat/stream")
    await page.has_ended(2)
    await expect(page.by("session-title")).to_have_text("Mine")
    await asyncio.sleep(1)
    assert (await chat.call("GET", f"/agent/session/{made['session_id']}"))["title"] == "Mine"


async def test_renaming_is_left_by_escape(listed: ChatPage, chat: Chat) -> None:
    await listed.session(TITLES[1]).hover()
    await listed.session(TITLES[1]).get_by_test_id("rename").click()
    await listed.by("rename-input").fill("not this")
    await listed.by("rename-input").press("Escape")
    await expect(listed.by("rename-input")).to_have_count(0)
    titles = {session["title"] for session in (await chat.call("GET", "/agent/sessions"))["sessions"]}
    assert titles == set(TITLES)


async def test_what_was_read_while_one_was_renamed_is_shown_then(listed: ChatPage, chat: Chat) -> None:
    await listed.session(TITLES[1]).hover()
    await listed.session(TITLES[1]).get_by_test_id("rename").click()
    await chat.session(title="made elsewhere")
    async with listed.page.expect_response(SESSIONS):
        await listed.evaluate("dispatchEvent(new Event('online'))")
    await listed.page.route(SESSIONS, Hold())
    await expect(listed.by("rename-input")).to_be_focused()
    await listed.by("rename-input").press("Escape")
    await expect(listed.session("made elsewhere")).to_be_visible()


async def test_one_is_deleted_and_taken_back(listed: ChatPage, chat: Chat) -> None:
    await listed.open_session(TITLES[1])
    session = listed.session_id()
    await listed.delete(TITLES[1])
    await expect(listed.sessions()).to_have_count(2)
    await expect(listed.by("toast")).to_be_visible()
    await listed.undo()
    await expect(listed.sessions()).to_have_count(3)
    await expect(listed.by("toast")).to_be_hidden()
    await listed.page.wait_for_timeout(9000)  # longer than the toast stays
    assert await rows(chat, session) == 2


async def test_one_that_is_opened_again_is_taken_back(listed: ChatPage) -> None:
    await listed.open_session(TITLES[1])
    await listed.delete(TITLES[1])
    await expect(listed.by("toast")).to_be_visible()
    await listed.page.go_back()
    await expect(listed.by("session-title")).to_have_text(TITLES[1])
    await expect(listed.session(TITLES[1])).to_be_visible()
    await expect(listed.by("toast")).to_be_hidden()


async def test_one_is_deleted_for_good(listed: ChatPage, chat: Chat) -> None:
    await listed.open_session(TITLES[1])
    session = listed.session_id()
    await listed.delete(TITLES[1])
    await expect(listed.messages()).to_have_count(0)
    await expect(listed.by("toast")).to_be_hidden(timeout=15_000)
    await listed.reload()
    await expect(listed.sessions()).to_have_count(2)
    await chat.call("GET", f"/agent/session/{session}", 404)
    assert await rows(chat, session) == 0


async def test_who_leaves_before_the_time_is_up_has_deleted_it(listed: ChatPage, chat: Chat, watch: Watch) -> None:
    watch.expect("status of 404")  # the next page deletes it, too
    await listed.open_session(TITLES[2])
    session = listed.session_id()
    await listed.delete(TITLES[2])
    await expect(listed.sessions()).to_have_count(2)
    await listed.reload()
    await expect(listed.sessions()).to_have_count(2)
    await is_deleted(chat, session)


async def test_a_deletion_that_did_not_get_through_is_made_by_the_next_page(
    listed: ChatPage, chat: Chat, watch: Watch
) -> None:
    watch.expect("Failed to load resource")
    await listed.open_session(TITLES[2])
    session = listed.session_id()
    await listed.page.route(SESSION, only("DELETE", refuse))
    async with listed.page.expect_event("requestfailed", lambda request: request.method == "DELETE"):
        await listed.delete(TITLES[2])
    await listed.reload()
    await expect(listed.session(TITLES[0])).to_be_visible()
    await expect(listed.session(TITLES[2])).to_have_count(0)
    await listed.page.unroute(SESSION)
    await is_deleted(chat, session)


async def test_one_that_is_not_there(listed: ChatPage, watch: Watch) -> None:
    watch.expect("status of 404")
    await listed.open(f"sess-{'0' * 32}")
    await expect(listed.page.get_by_role("alert").filter(has_text="does not exist")).to_be_visible()
    await expect(listed.by("composer")).to_be_enabled()


async def test_many_are_loaded_as_they_are_wanted(chat: Chat, new_page: OpenPage) -> None:
    for number in range(90):
        await chat.session(title=f"number {number}")
    page = await new_page(url_of(chat))
    await page.open()
    await expect(page.session("number 89")).to_be_visible()
    assert await page.sessions().count() < 90
    await page.search("number 3")
    await expect(page.sessions()).to_have_count(11)
    await page.search("")
    await expect(page.sessions()).to_have_count(90)


async def test_all_titles_are_searched_as_soon_as_there_are_any(chat: Chat, new_page: OpenPage) -> None:
    for number in range(90):
        await chat.session(title=f"number {number}")
    page = await new_page(url_of(chat))
    listing = Hold()
    await page.page.route(SESSIONS, listing)
    await page.open()
    await page.search("number 3")
    listing.go_on.set()
    await expect(page.sessions()).to_have_count(11)
