"""A file is whole, or as it was before."""

import pytest

from keras_spos import CostTable, Decision, SearchSpace, score_all
from keras_spos.costs import Block
from keras_spos.search import random_search
from keras_spos.whole_file import check_writable, whole_file


def test_a_file_that_fails_is_as_it_was(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    for text, fails in (("first", False), ("second", True)):
        try:
            with whole_file(path) as temporary, open(temporary, "w") as file:
                file.write(text)
                file.flush()
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert path.read_text() == "first"
        assert list(path.parent.iterdir()) == [path]
    with pytest.raises(OSError, match=r"can be written to. Received: .*a.txt.b "):
        with whole_file(path / "b"):
            raise AssertionError("There is no such folder.")
    with pytest.raises(OSError, match="can be written to.*that is a folder"):
        with whole_file(path.parent):
            raise AssertionError("That is a folder.")
    check_writable(path)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("search", [True, False])
def test_what_cannot_be_written_is_told_before_the_work(search, tmp_path):
    space = SearchSpace([Decision("a", "xy")])
    path = tmp_path / "run"
    (tmp_path / "run.tmp").mkdir()  # Nobody can write there.

    def score(paths):
        raise AssertionError("That would have been for nothing.")

    with pytest.raises(OSError, match="can be written to. Received: .*run "):
        if search:
            random_search(space, score, checkpoint=path, verbose=False)
        else:
            score_all(score, [(0,), (1,)], checkpoint=path, verbose=False)


def test_a_table_that_is_no_json_leaves_the_old_one(tmp_path):
    space = SearchSpace([Decision("a", "xy")])
    path = tmp_path / "table.json"
    for metadata in ({"batch": 1}, {"batch": object()}):
        table = CostTable(space, 0.0, [Block("a", (0,), [1, 2])], "t", "ms", metadata)
        if metadata["batch"] == 1:
            table.save(path)
        else:
            with pytest.raises(TypeError, match="JSON"):
                table.save(path)
    assert CostTable.load(path).metadata == {"batch": 1}
    assert list(tmp_path.iterdir()) == [path]
