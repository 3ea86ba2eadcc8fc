from hypothesis import given
from hypothesis import strategies as st

from medseg.files import fingerprint
from medseg.inference.journal import Journal, Terms

TERMS = Terms("d1", {"core": [384, 384], "batch": 2}, {"model": "m"})


@given(st.lists(st.lists(st.integers(0, 10**6), max_size=5), max_size=8), st.integers(0, 200))
def test_what_is_recorded_is_done_and_a_torn_line_is_not(tmp_path_factory, groups, cut):
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path, TERMS) as journal:
        for group in groups:
            journal.record(group)
    assert Journal.terms_of(path) == TERMS
    content = path.read_bytes()
    torn = content[: max(content.index(b"\n") + 1, len(content) - cut)]
    path.write_bytes(torn)
    whole = torn.count(b"\n") - 1
    expected = {tile for group in groups[:whole] for tile in group}
    with Journal(path, TERMS) as journal:
        assert journal.done == expected
        journal.record([7])
    with Journal(path, TERMS) as journal:
        assert journal.done == expected | {7}


def test_other_terms_begin_anew(tmp_path):
    path = tmp_path / "j"
    with Journal(path, TERMS) as journal:
        journal.record([1, 2])
    for other in (Terms("d2", TERMS.plan, TERMS.parts), Terms("d1", {"core": [368, 384], "batch": 2}, TERMS.parts)):
        with Journal(path, other) as journal:
            assert not journal.done
        assert Journal.terms_of(path) == other


def test_no_journal_and_a_foreign_file_have_no_terms(tmp_path):
    assert Journal.terms_of(tmp_path / "none") is None
    (tmp_path / "foreign").write_text("[1, 2]\nhello\n")
    assert Journal.terms_of(tmp_path / "foreign") is None
    (tmp_path / "torn").write_text('{"digest": "d1", "core"')
    assert Journal.terms_of(tmp_path / "torn") is None


def test_a_journal_is_removed_when_the_job_is_done(tmp_path):
    with Journal(tmp_path / "j", TERMS) as journal:
        journal.remove()
    assert not (tmp_path / "j").exists()


def test_a_fingerprint_notices_what_changes(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"one")
    before = fingerprint(file)
    assert fingerprint(file) == before
    file.write_bytes(b"three")
    assert fingerprint(file) != before
    folder = fingerprint(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert fingerprint(tmp_path) != folder
