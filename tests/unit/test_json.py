"""Strict JSON: the C core and its Python twin give the same verdict, the one docs/FORMAT.md (section 2) asks for."""

from __future__ import annotations

import json as standard_json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerfsd import errors, limits
from ledgerfsd.core import json
from ledgerfsd.core.pure import canonical as twin

VECTORS = Path(__file__).parent.parent / "vectors"
PARSING = sorted((VECTORS / "json-parsing-testsuite" / "test_parsing").iterdir())
NAMES_NOTED = 16384  # LFS_JSON_NAMES: beyond, duplicates and order are found the slower way


def verdict(text: bytes) -> tuple[str, int]:
    """Code and offset, the same from both; a text that is accepted has the same canonical form in both."""
    found = json.check(text)
    assert found == twin.check(text)
    assert json.is_canonical(text) == (found.code == 0 and twin.canonical(text) == text)
    if found.code == 0:
        form = json.canonical(text)
        assert form == twin.canonical(text)
        assert len(form) <= found.end - found.begin
        assert json.is_canonical(form)
        assert json.canonical(form) == form
    return errors.CODES[found.code].name, found.offset


# ---- the rules, one by one

REFUSED = [
    (b"", "empty", 0),
    (b" \t\r\n", "empty", 4),
    (b"\xef\xbb\xbf{}", "bad_json", 0),
    (b"{", "incomplete", 1),
    (b'{"a"', "incomplete", 4),
    (b'{"a":1', "incomplete", 6),
    (b'{"a":1,', "incomplete", 7),
    (b"[1", "incomplete", 2),
    (b"[1.5", "incomplete", 4),
    (b"-", "incomplete", 1),
    (b"1.", "incomplete", 2),
    (b"1e", "incomplete", 2),
    (b"1e+", "incomplete", 3),
    (b"tru", "incomplete", 3),
    (b'"\\', "incomplete", 2),
    (b'"\\u12', "incomplete", 5),
    (b'"\xe2\x82', "incomplete", 3),
    (b'"\\ud800', "incomplete", 7),
    (b'"\\ud800\\u', "incomplete", 9),
    (b'"\xe0\x80', "bad_utf8", 1),
    (b'"\xed\xa0', "bad_utf8", 1),
    (b'"ab\xc3"', "bad_utf8", 3),
    (b'"\xed\xa0\x80"', "bad_utf8", 1),
    (b'"\xf4\x90\x80\x80"', "bad_utf8", 1),
    (b'"\xc0\x80"', "bad_utf8", 1),
    (b'"a\\ud800"', "bad_utf8", 2),
    (b'"a\\udc00"', "bad_utf8", 2),
    (b'"a\\ud800\\n"', "bad_utf8", 2),
    (b'"a\\ud800\\ud800"', "bad_utf8", 2),
    (b'"a\\ud800\\u00x0"', "bad_json", 12),
    (b'"\n"', "bad_json", 1),
    (b'"\\x"', "bad_json", 2),
    (b'"\\u00g0"', "bad_json", 5),
    (b"{} {}", "bad_json", 3),
    (b"01", "bad_json", 1),
    (b"-x", "bad_json", 1),
    (b"+1", "bad_json", 0),
    (b"1.x", "bad_json", 2),
    (b"trux", "bad_json", 3),
    (b"truex", "bad_json", 4),
    (b"[1,]", "bad_json", 3),
    (b'{"a":1,}', "bad_json", 7),
    (b"{1:2}", "bad_json", 1),
    (b"[\xc3\xa9]", "bad_json", 1),
    (b"[1\x00]", "bad_json", 2),
    (b"[" * 17, "too_deep", 16),
    (b'{"a":' * 16 + b"{", "too_deep", 80),
    (b"[" * 16 + b"1]", "incomplete", 18),
    (b'{"a":1,"a":2}', "duplicate_key", 10),
    (b'{"a":1,"\\u0061":2}', "duplicate_key", 15),
    (b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":2}', "duplicate_key", 24),
    (b'{"a":1,"b":2,"a":1.5,"b":x}', "duplicate_key", 16),
    (b'{"a":{"b":1,"b":2},"a":1}', "duplicate_key", 15),
    (b'{"a":1,"a":{"b":1,"b":2}}', "duplicate_key", 10),
    (b'{"a":1,"a"', "duplicate_key", 10),
    (b"1.0", "bad_number", 3),
    (b"1e2", "bad_number", 3),
    (b"-0", "bad_number", 2),
    (b"[-0]", "bad_number", 3),
    (b"9007199254740992", "bad_number", 16),
    (b"-9007199254740992", "bad_number", 17),
    (b"[" + b"1" * 5000 + b"]", "bad_number", 5001),
]


@pytest.mark.parametrize(("text", "code", "offset"), REFUSED)
def test_first_offence_is_reported(text: bytes, code: str, offset: int) -> None:
    assert verdict(text) == (code, offset)


CANONICAL = [
    (b" { } ", b"{}"),
    (b"42 ", b"42"),
    (b"9007199254740991", b"9007199254740991"),
    (b"[-9007199254740991,0]", b"[-9007199254740991,0]"),
    (b'[ true , false,null ,"" ]', b'[true,false,null,""]'),
    (b'{"b":[],"a":{"d":1,"c":2}}', b'{"a":{"c":2,"d":1},"b":[]}'),
    (b'"\\/\\u0041\\u00e9\\u007f"', b'"/A\xc3\xa9\x7f"'),
    (b'"\\u0008\\u000A\\u001F\\u0022\\u005c"', b'"\\b\\n\\u001f\\"\\\\"'),
    (b'"\\uD83D\\uDE00"', b'"\xf0\x9f\x98\x80"'),
    # by UTF-16 code units U+1F600 (D83D DE00) comes before U+FB33, by code points after it
    (b'{"\xef\xac\xb3":1,"\xf0\x9f\x98\x80":2}', b'{"\xf0\x9f\x98\x80":2,"\xef\xac\xb3":1}'),
    (b'{"ab":1,"a":2,"":3,"a\\u0000":4}', b'{"":3,"a":2,"a\\u0000":4,"ab":1}'),
    (b"[" * 16 + b"]" * 16, b"[" * 16 + b"]" * 16),
]


@pytest.mark.parametrize(("text", "form"), CANONICAL)
def test_canonical_form(text: bytes, form: bytes) -> None:
    assert verdict(text) == ("ok", 0)
    assert json.canonical(text) == form


def test_what_ends_inside_a_value_is_incomplete() -> None:
    text = b' {"a":[1,-2,{"\\u00e9\xc3\xa9\\ud83d\\ude00":null}],"b":"\\n","c":true,"d":{}} '
    assert verdict(text) == ("ok", 0)
    for length in range(2, len(text) - 1):
        assert verdict(text[:length]) == ("incomplete", length)


def test_canonical_refuses_what_check_refuses() -> None:
    for form in (json.canonical, twin.canonical):
        with pytest.raises(ValueError, match="bad_number at byte 3"):
            form(b"[-0]")


# ---- published vectors


@pytest.mark.parametrize("path", PARSING, ids=lambda path: path.stem)
def test_parsing_testsuite(path: Path) -> None:
    text = path.read_bytes()
    code, _ = verdict(text)
    if path.name.startswith("n_"):
        assert code != "ok"
    if path.name.startswith("y_"):
        assert code in ("ok", "bad_number", "duplicate_key")
        assert (code == "duplicate_key") == ("duplicated_key" in path.name)
    if code == "ok":
        assert standard_json.loads(json.canonical(text)) == standard_json.loads(text)
    if path.name.startswith("y_") and code == "bad_number":
        value = standard_json.loads(text, parse_int=lambda digits: float("nan") if digits == "-0" else 0)
        assert "nan" in repr(value) or "." in repr(value) or "e" in repr(value)


@pytest.mark.parametrize("name", ["arrays", "french", "unicode", "weird"])
def test_rfc8785_vectors(name: str) -> None:
    vectors = VECTORS / "json-canonicalization-rfc8785"
    text = (vectors / "input" / f"{name}.json").read_bytes()
    assert verdict(text) == ("ok", 0)
    assert json.canonical(text) == (vectors / "output" / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", ["structures", "values"])
def test_rfc8785_vectors_with_fractions_are_refused(name: str) -> None:
    text = (VECTORS / "json-canonicalization-rfc8785" / "input" / f"{name}.json").read_bytes()
    assert verdict(text)[0] == "bad_number"


# ---- any text

strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, strings),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=20),
    max_leaves=12,
)


def written_string(draw: st.DrawFn, text: str) -> bytes:
    """A string with escapes that are needed, and some that are not."""
    parts = [b'"']
    for letter in text:
        if letter in '"\\' or letter < " " or draw(st.integers(0, 5)) == 0:
            units = letter.encode("utf-16-be")
            escape = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
            parts.append((escape if draw(st.booleans()) else escape.upper().replace("\\U", "\\u")).encode())
        else:
            parts.append(letter.encode())
    return b"".join(parts) + b'"'


@st.composite
def written(draw: st.DrawFn, value: object = None) -> tuple[object, bytes]:
    """A value, and one of the many ways to write it."""
    space = st.sampled_from([b"", b"", b" ", b"\n\t"])

    def write(part: object) -> bytes:
        before, after = draw(space), draw(space)
        if isinstance(part, dict):
            members = [before + written_string(draw, name) + after + b":" + write(part[name]) for name in part]
            return b"{" + b",".join(members) + after + b"}"
        if isinstance(part, list):
            return before + b"[" + b",".join(write(item) for item in part) + before + b"]"
        return (
            before
            + (written_string(draw, part) if isinstance(part, str) else standard_json.dumps(part).encode())
            + after
        )

    value = draw(values)
    return value, write(value)


@settings(max_examples=150, deadline=None)
@given(written())
def test_every_way_to_write_a_value_has_one_form(case: tuple[object, bytes]) -> None:
    value, text = case
    assert verdict(text) == ("ok", 0)
    assert json.canonical(text) == twin.dump(value)  # type: ignore[arg-type]
    assert standard_json.loads(json.canonical(text)) == value


@settings(max_examples=250, deadline=None)
@given(written(), st.data())
def test_damaged_texts_get_the_same_verdict(case: tuple[object, bytes], data: st.DataObject) -> None:
    text = case[1]
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 6)))
        other = data.draw(st.integers(0, len(text)))
        new = data.draw(st.binary(max_size=4) | st.sampled_from(PIECES) | st.just(text[other : other + 8]))
        text = text[:begin] + new + text[end:]
    verdict(text)


PIECES = [bytes([byte]) for byte in b'{}[],:"\\ -0\x00\x1f']
PIECES += rb'"a" "a":1 "\u0061" true null \u d83d \ude00 00 12 .5 e3'.split()
PIECES += [b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0"]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join) | st.binary(max_size=40))
def test_any_bytes_get_the_same_verdict(text: bytes) -> None:
    verdict(text)
    verdict(b'{"a":[' + text)
    verdict(b'"' + text)


# ---- many members


def object_of(names: list[bytes]) -> bytes:
    return b"{" + b",".join(b'"' + name + b'":0' for name in names) + b"}"


@pytest.mark.parametrize("count", [2, 16, 17, 40, 9000])
def test_duplicates_among_many_members(count: int) -> None:
    names = [b"%x" % (number * 7919 % 65521) for number in range(count)]
    assert verdict(object_of(names)) == ("ok", 0)
    for second in {1, count // 2, count - 1}:
        repeated = object_of([*names[:second], names[0], *names[second:], names[1]])
        assert verdict(repeated) == ("duplicate_key", len(object_of([*names[:second], names[0]])) - 3)


def test_more_members_than_are_noted() -> None:
    names = [b"%x" % number for number in range(NAMES_NOTED + 20)]
    text = object_of(names)
    assert json.check(text) == twin.check(text) == (0, 0, 0, len(text))
    for first, second in ((5, 9), (5, NAMES_NOTED + 9), (NAMES_NOTED + 2, NAMES_NOTED + 9)):
        repeated = object_of([*names[:second], names[first], *names[second:]])
        assert verdict(repeated) == ("duplicate_key", len(object_of([*names[:second], names[first]])) - 3)


def test_order_when_outer_names_take_the_room() -> None:
    outer = object_of([b"%x" % number for number in range(NAMES_NOTED - 2)])
    inner = b',"inner":{"d":{"z":[1, 2],"y":"\\u0041"},"a":1 ,"c":{},"b":[{"f":1, "e":2}]}}'
    assert verdict(outer[:-1] + inner) == ("ok", 0)
    assert b'"inner":{"a":1,"b":[{"e":2,"f":1}],"c":{},"d":{"y":"A","z":[1,2]}}' in json.canonical(outer[:-1] + inner)


def test_an_intent_of_nothing_but_members_is_noted() -> None:
    assert limits.INTENT_BYTES_MAX // len(b'"":0,') < NAMES_NOTED
    assert limits.JSON_DEPTH_MAX == 16


# ---- the parts


@settings(max_examples=200, deadline=None)
@given(strings, strings)
def test_names_and_strings(a: str, b: str) -> None:
    key_a, key_b = twin.name_key(a), twin.name_key(b)
    order = json.name_order(a, b)
    assert (order < 0, order == 0, order > 0) == (key_a < key_b, key_a == key_b, key_a > key_b)
    assert json.quote(a) == twin.quote(a)
    assert json.unquote(json.quote(a)) == a
    assert json.unquote(standard_json.dumps(a).encode()) == a


@settings(max_examples=100, deadline=None)
@given(written(), st.lists(st.integers(1, 9), min_size=1))
def test_scanner_finds_the_end_however_the_bytes_arrive(case: tuple[object, bytes], steps: list[int]) -> None:
    value, text = case
    stream = text + b' {"next":"]}"}'
    scanners = (json.Scanner(), twin.Scanner())
    if not isinstance(value, dict | list):
        for scanner in scanners:
            with pytest.raises(ValueError, match="neither"):
                scanner.feed(text)
        return
    for scanner in scanners:
        at = turn = 0
        while not scanner.done:
            at += scanner.feed(stream[at : at + steps[turn % len(steps)]])
            turn += 1
        assert stream[:at] == text.rstrip()
        assert scanner.feed(b"{}") == 0


def test_scanner_passes_over_white_space_only() -> None:
    for scanner in (json.Scanner(), twin.Scanner()):
        assert scanner.feed(b" \n\t\r") == 4
        assert scanner.feed(b"") == 0
        assert not scanner.done
        assert scanner.feed(b'["\\"]","\\\\"] x') == 12
        assert scanner.done


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 70))
def test_newlines(gaps: list[int], begin: int) -> None:
    text = b"\n".join(b"x" * gap for gap in gaps)
    assert json.newlines(text) == text.count(b"\n")
    assert json.newlines(text[begin:]) == text[begin:].count(b"\n")


@pytest.mark.parametrize("lines", [254, 255, 256, 255 * 64 - 1, 255 * 64, 255 * 64 + 1, 40_000])
def test_newlines_in_numbers_that_no_byte_holds(lines: int) -> None:
    assert json.newlines(b"\n" * lines) == lines
    assert json.newlines(b"\n\x0b" * lines + b"x") == lines
