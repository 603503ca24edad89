"""A set on disk: what goes in comes out, and a cut run leaves nothing."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcode.errors import UnreadableFile, UnwritableFile
from diffcode.training.dataset import Dataset, DatasetWriter

documents = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2**32 - 1), max_size=20), st.sampled_from(["python", "cpp", "tsx", "other", "cobol"])
    ),
    min_size=1,
    max_size=12,
).filter(lambda drawn: any(ids for ids, _ in drawn))


def write(folder: Path, *ids: list[int], **card: Any) -> Path:
    with DatasetWriter(folder) as writer:
        for document in ids:
            writer.add(document, "python")
        writer.close(card)
    return folder


@settings(max_examples=50)
@given(documents, st.data())
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[list[int], str]], data: st.DataObject
) -> None:
    folder, held = tmp_path_factory.mktemp("set") / "s", data.draw(st.integers(0, len(drawn)))
    with DatasetWriter(folder) as writer:
        for ids, language in drawn:
            writer.add(np.asarray(ids, dtype=np.uint32) if held else ids, language)
        writer.close({"validation_documents": held, "note": "é"})
    dataset = Dataset.open(folder)
    assert [ids.tolist() for ids in dataset] == [ids for ids, _ in drawn]
    assert [dataset.length(i) for i in range(len(dataset))] == [len(ids) for ids, _ in drawn]
    known = [language if language != "cobol" else "other" for _, language in drawn]
    assert [dataset.language(i) for i in range(len(dataset))] == known
    assert dataset.tokens == sum(len(ids) for ids, _ in drawn)
    assert [*dataset.training, *dataset.validation] == [*range(len(drawn))]
    assert len(dataset.validation) == held
    assert dataset.card["note"] == "é"
    assert [path.name for path in folder.parent.iterdir()] == ["s"], "nothing is left beside it"


def test_a_cut_run_leaves_the_old_set(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [1, 2, 3])
    with suppress(KeyboardInterrupt), DatasetWriter(folder) as writer:
        writer.add([9], "python")
        raise KeyboardInterrupt
    assert [ids.tolist() for ids in Dataset.open(folder)] == [[1, 2, 3]]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_an_older_set_is_replaced_and_its_readers_go_on(tmp_path: Path) -> None:
    old = Dataset.open(write(tmp_path / "s", [1, 2, 3]))
    write(tmp_path / "s", [7], [8, 9])
    assert [ids.tolist() for ids in Dataset.open(tmp_path / "s")] == [[7], [8, 9]]
    assert old.ids(0).tolist() == [1, 2, 3]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(UnwritableFile, match="another --out"):
        DatasetWriter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFile, match="another --out"):
        DatasetWriter(tmp_path / "file/s")


@pytest.mark.parametrize("name", ["card.json", "index.npy", "languages.npy", "tokens.bin"])
@pytest.mark.parametrize("damage", ["missing", "short", "empty"])
def test_a_damaged_set_is_one_clear_line(name: str, damage: str, tmp_path: Path) -> None:
    file = write(tmp_path / "s", [1, 2, 3], [4, 5]) / name
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[:-4] if damage == "short" else b"")
    with pytest.raises(UnreadableFile) as caught:
        Dataset.open(tmp_path / "s")
    assert str(tmp_path / "s") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("card", ["[]", "null", "7", '{"validation_documents": 3}', '{"validation_documents": []}'])
def test_a_card_that_is_none_is_one_clear_line(card: str, tmp_path: Path) -> None:
    (write(tmp_path / "s", [1, 2, 3], [4, 5]) / "card.json").write_text(card)
    with pytest.raises(UnreadableFile, match="build"):
        Dataset.open(tmp_path / "s")


def test_a_folder_without_a_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="diffcode data build"):
        Dataset.open(tmp_path / "nowhere")


def test_the_card_is_json(tmp_path: Path) -> None:
    card = json.loads((write(tmp_path / "s", [1], validation_documents=0, hash="x") / "card.json").read_text())
    assert card == {"validation_documents": 0, "hash": "x"}
