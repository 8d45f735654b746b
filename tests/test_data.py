"""The sample corpus under ``data/`` is what its README says it is."""

import csv
import json
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parent.parent / "data"
CORPUS = DATA / "handbook"
LANGUAGES = {"en", "de", "fr"}
PROSE = {".md", ".rst", ".txt"}
CODE = {".c", ".js", ".py", ".sql", ".toml"}

# Function words only: articles, pronouns, prepositions, conjunctions, auxiliaries, question words
# and the adverbs that every text contains. Nouns, verbs of meaning and adjectives stay content.
STOPWORDS = {
    "en": """
        a about above after again against all also am an and any are around as at away be because
        been before being below between both but by can cannot could did do does doing done down
        during each either else ever every few for from further had has have having he her here
        hers herself him himself his how i if in into is it its itself just let like many may me
        might more most much must my myself neither never no nobody none nor not nothing now of off
        often on once one only onto or other ought our ours ourselves out over own per quite rather
        same shall she should since so some somebody someone something still such than that the
        their theirs them themselves then there these they this those though through to too toward
        towards under until up upon us very was we were what whatever when where whether which
        while who whoever whom whose why will with within without would yes yet you your yours
        yourself yourselves
        """,
    "de": """
        ab aber alle allem allen aller alles als also am an ander andere anderen anderer anderes
        auch auf aus außer bei beim bevor bin bis bist da dabei dadurch dafür dagegen daher damit
        danach dann daran darauf daraus darf darin darum das dass davon dazu dein deine dem den
        denen denn der deren des deshalb dessen die dies diese diesem diesen dieser dieses doch dort
        du durch dürfen ein eine einem einen einer eines einige er es etwa etwas euch euer für
        gegen hab habe haben hat hatte hatten her hier hin hinter ich ihm ihn ihnen ihr ihre ihrem
        ihren ihrer im immer in ins ist ja jede jedem jeden jeder jedes jedoch jemand jene jetzt
        kann kein keine keinem keinen keiner können könnte man manche mehr mein meine mich mir mit
        muss müssen nach nein nicht nichts nie niemand noch nun nur ob oder ohne schon sehr sein
        seine seinem seinen seiner seit sich sie sind so sogar solche soll sollen sollte sondern
        über um und uns unser unsere unter viel vom von vor war wäre waren warum was weder weil
        welche welchem welchen welcher welches wem wen wenn wer werden wie wieder will wir wird wo
        woher wohin womit worden wurde wurden während zu zum zur zwar zwischen
        """,
    "fr": """
        à afin ai ailleurs ainsi alors après assez au aucun aucune aujourd auquel aura aussi autre
        autres aux avait avant avec avez avoir avons ayant car ce ceci cela celle celles celui
        cependant ces cet cette ceux chaque chez ci combien comme comment contre d dans de depuis
        des dès deux doit donc dont du elle elles en encore entre es est et étaient était étant
        été être eu eux fait faut ici il ils j je jusqu jusque l la là laquelle le lequel les
        lesquels leur leurs lors lorsque lui m ma mais me même mêmes mes moi moins mon n ne ni non
        nos notre nous on ont ou où par parce pas pendant peu peut peuvent plus plusieurs pour
        pourquoi puis puisque qu quand que quel quelle quelles quelque quelques quels qui quoi s sa
        sans se sera ses si sinon soi soit son sont sous sur t ta tandis te tel telle tes toi ton
        toujours tous tout toute toutes très trop tu un une va vers voici voilà vos votre vous y
        """,
}


def fold(text: str) -> str:
    """Return ``text`` casefolded and without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold().replace("œ", "oe"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def content_words(text: str, language: str) -> set[str]:
    """Return the folded words of three letters or more that are not function words."""
    stopwords = set(fold(STOPWORDS[language]).split())
    return {w for w in re.findall(r"[^\W\d_]{3,}", fold(text)) if w not in stopwords}


def shared_words(question: str, document: str, language: str) -> set[str]:
    """Return the question's content words that the document has too, in most inflections.

    Two words count as the same if their first five letters agree or if one, shorter than
    that, begins the other ("tax" and "taxes"). A strict reading: "car" is found in "carpet".
    """
    stems = {word[:5] for word in content_words(document, language)}
    return {
        word
        for word in content_words(question, language)
        if any(word[:5].startswith(stem) or stem.startswith(word[:5]) for stem in stems)
    }


def paragraphs(text: str) -> Iterator[str]:
    """Yield the blocks between blank lines that have eight words or more, spaces normalised."""
    for block in re.split(r"\n\s*\n", text):
        normal = " ".join(block.split())
        if len(re.findall(r"[^\W\d_]+", normal)) >= 8:
            yield fold(normal)


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a tab-separated file with a header."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def declared() -> dict[str, dict[str, str]]:
    return {row["path"]: row for row in rows("documents.tsv")}


@pytest.fixture(scope="module")
def texts(declared) -> dict[str, str]:
    return {
        path: (CORPUS / path).read_bytes().decode(row["encoding"]) for path, row in declared.items()
    }


@pytest.fixture(scope="module")
def questions() -> list[dict]:
    lines = (DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def qrels() -> list[tuple[str, str, int]]:
    return [(row["query-id"], row["corpus-id"], int(row["score"])) for row in rows("qrels.tsv")]


def test_the_list_of_documents_names_every_file_and_no_other(declared):
    on_disk = {p.relative_to(CORPUS).as_posix() for p in CORPUS.rglob("*") if p.is_file()}
    on_disk = {path for path in on_disk if "__pycache__" not in path}
    assert set(declared) == on_disk
    assert len(rows("documents.tsv")) == len(declared)


def test_there_are_at_least_forty_documents_in_several_formats(declared):
    suffixes = Counter(Path(path).suffix for path in declared)
    assert len(declared) >= 40
    assert set(suffixes) == PROSE | CODE


def test_each_of_the_three_languages_is_there_in_more_than_one_format(declared):
    assert {row["language"] for row in declared.values()} == LANGUAGES
    for language in LANGUAGES:
        own = [path for path, row in declared.items() if row["language"] == language]
        assert len(own) >= 9
        assert len({Path(path).suffix for path in own}) >= 3


def test_each_document_is_written_in_the_language_it_declares(declared, texts):
    for path, row in declared.items():
        words = re.findall(r"[^\W\d_]+", fold(texts[path]))
        known = {name: set(fold(STOPWORDS[name]).split()) for name in LANGUAGES}
        hits = {name: sum(word in known[name] for word in words) for name in LANGUAGES}
        assert max(hits, key=lambda name: hits[name]) == row["language"], (path, hits)


def test_one_document_is_not_utf_8_and_decodes_as_declared(declared, texts):
    foreign = [path for path, row in declared.items() if row["encoding"] != "utf-8"]
    assert foreign == ["station/sonnenscheinschreiber.txt"]
    with pytest.raises(UnicodeDecodeError):
        (CORPUS / foreign[0]).read_text(encoding="utf-8")
    assert "Längster Tag" in texts[foreign[0]]


def test_no_document_holds_control_characters_or_overlong_lines(texts):
    for path, text in texts.items():
        assert text.endswith("\n"), path
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffd]", text), path
        assert max(len(line) for line in text.splitlines()) <= 100, path


def test_the_median_document_has_more_than_250_words_and_none_is_a_stub(texts):
    lengths = {path: len(re.findall(r"[^\W\d_]+", text)) for path, text in texts.items()}
    assert statistics.median(lengths.values()) > 250
    assert min(lengths.values()) >= 180


def test_no_two_documents_share_a_paragraph(texts):
    owners: dict[str, str] = {}
    for path, text in texts.items():
        for paragraph in set(paragraphs(text)):
            assert owners.setdefault(paragraph, path) == path, paragraph


def test_markdown_and_restructuredtext_have_nested_headings(texts):
    for path, text in texts.items():
        if path.endswith(".md"):
            levels = {len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)}
            assert {1, 2} <= levels, path
        if path.endswith(".rst"):
            underlines = re.findall(r"^\S.*\n([=#*~-])\1{3,}$", text, re.MULTILINE)
            assert len(set(underlines)) >= 2 or len(underlines) >= 4, path


def test_there_are_at_least_forty_questions_with_unique_names_in_every_language(questions):
    assert len(questions) >= 40
    assert len({question["_id"] for question in questions}) == len(questions)
    assert len({question["text"] for question in questions}) == len(questions)
    assert {question["language"] for question in questions} == LANGUAGES


def test_the_judgements_name_existing_questions_and_documents(questions, qrels, declared):
    header = (DATA / "qrels.tsv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "query-id\tcorpus-id\tscore"
    assert {query for query, _, _ in qrels} == {question["_id"] for question in questions}
    assert {document for _, document, _ in qrels} <= set(declared)
    assert len({(query, document) for query, document, _ in qrels}) == len(qrels)
    assert {score for _, _, score in qrels} == {1, 2}


def test_every_question_has_an_answer_and_about_half_have_a_related_document(questions, qrels):
    answered = {query for query, _, score in qrels if score == 2}
    related = {query for query, _, score in qrels if score == 1}
    assert answered == {question["_id"] for question in questions}
    assert 0.4 <= len(related) / len(questions) <= 0.7


def test_the_marked_paraphrases_share_no_content_word_with_their_answers(
    questions, qrels, texts, declared
):
    marked = [question for question in questions if question.get("paraphrase")]
    assert len(marked) >= 10
    for question in marked:
        assert len(content_words(question["text"], question["language"])) >= 3, question
        for query, document, score in qrels:
            if query == question["_id"] and score == 2:
                assert declared[document]["language"] == question["language"]
                shared = shared_words(question["text"], texts[document], question["language"])
                assert not shared, (question["text"], document, shared)


def test_the_paraphrase_check_sees_inflections_accents_and_short_words():
    assert shared_words("Which taxes apply?", "There is no tax.", "en") == {"taxes"}
    assert shared_words("Who repaired it?", "Repairs are free.", "en") == {"repaired"}
    assert shared_words("Où est la clé ?", "la cle pend au mur", "fr") == {"cle"}
    assert shared_words("Welche Züge gehen?", "Der Zug fährt.", "de") == {"zuge"}
    assert not shared_words("Who is it with?", "with whom, who knows", "en")
