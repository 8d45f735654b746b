-- library_loans.sql: the lending library of Haldrey, in one file.
--
-- The library has 5,870 books, a telescope, four ukuleles, a carpet cleaner and a skeleton
-- (plastic, named Gordon). All of them are lent by the same rules, so all of them are rows of
-- `item`. Opening hours are Monday and Thursday from four to seven; outside them the key is with
-- Hetty Vane, and borrowers write in the exercise book by the door, which is typed in on
-- Saturdays.

CREATE TABLE borrower (
    card      INTEGER PRIMARY KEY,           -- printed on the green card
    name      TEXT NOT NULL,
    house     TEXT NOT NULL,                 -- the house's name; there are no street numbers
    born      TEXT,                          -- only children, who may keep picture books for ever
    guarantor INTEGER REFERENCES borrower    -- a resident who answers for a visitor
);

CREATE TABLE item (
    -- 'F' fiction, 'S' sea, 'N' nature, 'X' everything that is not a book
    shelfmark TEXT PRIMARY KEY,
    title     TEXT NOT NULL,
    language  TEXT NOT NULL CHECK (language IN ('en', 'de', 'fr', 'br')),
    days      INTEGER NOT NULL DEFAULT 28,   -- 28 for books, 7 for things, 2 for the carpet cleaner
    reserve   TEXT                           -- why it may not leave the room, if it may not
);

CREATE TABLE loan (
    card      INTEGER NOT NULL REFERENCES borrower,
    shelfmark TEXT NOT NULL REFERENCES item,
    taken     TEXT NOT NULL,
    returned  TEXT,
    PRIMARY KEY (shelfmark, taken)
);

-- Nobody is fined. A borrower with something overdue by more than sixty days cannot take a new
-- thing until the old one is back or its loss has been confessed; confession costs what a
-- replacement costs, or two hours of dusting.
CREATE VIEW barred AS
SELECT DISTINCT loan.card
FROM loan JOIN item USING (shelfmark)
WHERE loan.returned IS NULL
  AND julianday('now') - julianday(loan.taken) > item.days + 60;

-- A visitor may have two things at a time, a resident eight, a child as many as can be carried in
-- one go.
CREATE TRIGGER too_many BEFORE INSERT ON loan
WHEN (SELECT count(*) FROM loan WHERE card = NEW.card AND returned IS NULL) >=
     (SELECT CASE WHEN born IS NOT NULL THEN 99 WHEN guarantor IS NOT NULL THEN 2 ELSE 8 END
      FROM borrower WHERE card = NEW.card)
BEGIN
    SELECT RAISE(ABORT, 'too many things at home; bring one back first');
END;

-- The annual list for the Moot: what was wanted most. The telescope has won every year but one;
-- in 2020 it was the sourdough book.
CREATE VIEW most_wanted AS
SELECT item.title, count(*) AS times
FROM loan JOIN item USING (shelfmark)
WHERE loan.taken >= date('now', 'start of year')
GROUP BY item.shelfmark
ORDER BY times DESC
LIMIT 10;
