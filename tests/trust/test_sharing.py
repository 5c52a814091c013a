"""A shared server opens, downloads and lets change only what it should; anything else is one's own machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from copal_core.checkpoints import locate
from copal_core.config import RunConfig
from copal_core.domains import find
from copal_core.errors import CheckpointError, DomainError, RunError
from copal_core.experiment import groups, processes
from copal_core.store import shelf
from copal_core.store.groups import Groups
from copal_core.store.run_store import RunState, RunStore
from copal_core.store.runs import Runs
from copal_core.store.variations import seeds
from copal_core.system import sharing

ANNA, BEN = "a" * 32, "b" * 32


@pytest.fixture
def as_person(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """as_person(ANNA): who asks from now on."""
    monkeypatch.setenv("COPAL_SHARED", "1")
    asking = {"person": ANNA}
    monkeypatch.setattr(sharing, "_resolver", lambda: asking["person"])
    return lambda person: asking.update(person=person)


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(
        checkpoint="tiny", domains=("python-code", "shakespeare"), methods=("magnitude:restart",)
    )


def test_texts_outside_the_roots_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret.txt"
    allowed.mkdir()
    secret.write_text("secret")
    (allowed / "notes.txt").write_text("notes")
    (allowed / "link.txt").symlink_to(secret)
    (allowed / "circle.txt").symlink_to(allowed / "circle.txt")
    assert find(str(secret)).name == "secret.txt"  # on a machine of one's own
    monkeypatch.setenv("COPAL_SHARED", "1")
    monkeypatch.setenv("COPAL_ROOTS", str(allowed))
    monkeypatch.setenv("COPAL_RUNS", str(tmp_path / "runs"))
    assert find(str(allowed / "notes.txt")).name == "notes.txt"
    uploads = tmp_path / "runs" / "uploads"
    uploads.mkdir(parents=True)
    (uploads / "mine.txt").write_text("mine")
    assert find(str(uploads / "mine.txt")).name == "mine.txt"
    for path in (secret, allowed / "link.txt", allowed / ".." / "secret.txt", allowed / "circle.txt"):
        with pytest.raises(DomainError):
            find(str(path))
    for path in (str(uploads), "~/model.gguf", "/etc/passwd"):
        with pytest.raises(CheckpointError, match="shared server"):
            locate(path)


def test_downloads_are_allow_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("hub:owner/texts").name == "texts"
    monkeypatch.setenv("COPAL_SHARED", "1")
    for name in ("hub:wikitext-2", "hub:owner/texts"):
        with pytest.raises(DomainError, match="downloads"):
            find(name)
    with pytest.raises(CheckpointError, match="downloads"):
        locate("owner/model@main")
    monkeypatch.setenv("COPAL_HUB_ALLOW", "owner/*, Salesforce/wikitext")
    assert find("hub:owner/texts").name == "texts"
    assert find("hub:wikitext-2").name == "wikitext-2"
    for name in ("hub:owner2/texts", "hub:allenai/c4", "hub:x/owner"):
        with pytest.raises(DomainError, match="downloads"):
            find(name)


@pytest.mark.parametrize("value", ["", "0"])
def test_nothing_is_limited_unless_shared(
    value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COPAL_SHARED", value)
    assert sharing.why_not_path(Path("/etc/passwd")) is None
    assert sharing.why_not_hub("any/thing") is None
    sharing.claim(tmp_path)
    assert not list(tmp_path.iterdir())
    assert sharing.is_owner(tmp_path)


def refused(action: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(RunError, match="belongs to another person"):
        action(*arguments)


def test_a_run_is_its_makers(runs: Runs, config: RunConfig, as_person: Callable[[str], None]) -> None:
    store = runs.create(config)
    before = (store.folder / "run.json").read_bytes()
    assert ANNA not in before.decode()  # what is exported and shared names nobody
    as_person(BEN)
    for action in (processes.start, processes.cancel, shelf.delete):
        refused(action, store)
    refused(shelf.rename, store, "mine now")
    refused(shelf.note, store, "mine now")
    assert not store.cancel_requested()
    assert (store.folder / "run.json").read_bytes() == before
    as_person(ANNA)
    shelf.rename(store, "Anna's")
    shelf.delete(store)
    as_person(BEN)
    refused(shelf.restore, runs.root, store.id)
    shelf.empty_trash(runs.root)
    assert [run.title for run in shelf.trashed(runs.root)] == ["Anna's"]
    as_person(ANNA)
    assert shelf.restore(runs.root, store.id).info["title"] == "Anna's"


def test_groups_are_their_makers(runs: Runs, config: RunConfig, as_person: Callable[[str], None]) -> None:
    group = Groups(runs.root).create(seeds(config, 2))
    as_person(BEN)
    refused(groups.start, group)
    refused(group.request_cancel)
    assert not group.cancel_requested()


def test_what_the_operator_made_is_nobodys(
    runs: Runs, config: RunConfig, monkeypatch: pytest.MonkeyPatch, as_person: Callable[[str], None]
) -> None:
    monkeypatch.setenv("COPAL_SHARED", "0")
    store = runs.create(config)
    monkeypatch.setenv("COPAL_SHARED", "1")
    refused(shelf.rename, store, "mine now")
    monkeypatch.setattr(sharing, "_resolver", None)
    monkeypatch.delenv("COPAL_PERSON", raising=False)
    shelf.rename(store, "the operator may")
    assert store.info["title"] == "the operator may"


def test_another_person_sees_the_run_and_cannot_cancel_it(
    runs_folder: Path, open_page: Callable, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookies = {"copal-person": "1" * 64}
    monkeypatch.setenv("COPAL_SHARED", "1")
    monkeypatch.setattr("streamlit.runtime.context.ContextProxy.cookies", cookies)
    from pages.shared import people

    monkeypatch.setattr(sharing, "_resolver", people._person)
    store = Runs(runs_folder).create(config)
    store.set_state(RunState(status="running", progress=0.2))
    with store.lock():
        cookies["copal-person"] = "2" * 64
        app = open_page("prune", run=store.id)
        assert not app.exception
        assert "cancel-run" not in [button.key for button in app.button]
        assert "another person" in " ".join(caption.value for caption in app.caption)
        with pytest.raises(RunError, match="another person"):
            store.request_cancel()
        assert not store.cancel_requested()
        cookies["copal-person"] = "1" * 64
        app.run().button(key="cancel-run").click().run()
        assert store.cancel_requested()


def test_the_token_of_one_browser_is_one_person(monkeypatch: pytest.MonkeyPatch) -> None:
    from pages.shared import people

    token, other = bytes(range(16)), bytes(range(1, 17))

    def masked(content: bytes, mask: bytes) -> str:
        hidden = bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))
        return f"2|{mask.hex()}|{hidden.hex()}|1763700000"

    def person(cookie: str) -> str:
        monkeypatch.setattr("streamlit.runtime.context.ContextProxy.cookies", {"_streamlit_xsrf": cookie})
        return people._person()

    assert person(masked(token, b"abcd")) == person(masked(token, b"wxyz"))
    assert person(masked(token, b"abcd")) != person(masked(other, b"abcd"))
    assert token.hex() not in person(masked(token, b"\0\0\0\0"))


def test_a_store_of_its_own_run_is_claimed_once(runs: Runs, config: RunConfig, as_person: Callable) -> None:
    store = runs.create(config)
    assert (store.folder / "owner").read_text() == ANNA
    assert isinstance(store, RunStore) and sharing.is_owner(store.folder)
