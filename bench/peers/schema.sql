-- A ledger in PostgreSQL as its friends would write it: integers, an id that cannot pay twice, a limit that the database
-- itself checks, room on each page for the updates of balances (HOT), and functions, so that a transfer is one round trip.
CREATE TABLE accounts (
    account int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text   NOT NULL UNIQUE,
    debits  bigint NOT NULL DEFAULT 0,
    credits bigint NOT NULL DEFAULT 0,
    CHECK (credits - debits >= 0)
) WITH (fillfactor = 50);

CREATE TABLE transfers (
    id        text   PRIMARY KEY,
    debit     int    NOT NULL,
    credit    int    NOT NULL,
    amount    bigint NOT NULL CHECK (amount > 0),
    reference text   NOT NULL,
    booked    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One transfer. Rows are locked in the order of their numbers, so two that cross do not wait for each other for ever.
CREATE FUNCTION transfer(p_id text, p_debit text, p_credit text, p_amount bigint, p_reference text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    d int;
    c int;
BEGIN
    SELECT account INTO STRICT d FROM accounts WHERE name = p_debit;
    SELECT account INTO STRICT c FROM accounts WHERE name = p_credit;
    INSERT INTO transfers (id, debit, credit, amount, reference) VALUES (p_id, d, c, p_amount, p_reference)
        ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF d < c THEN
        UPDATE accounts SET debits = debits + p_amount WHERE account = d;
        UPDATE accounts SET credits = credits + p_amount WHERE account = c;
    ELSE
        UPDATE accounts SET credits = credits + p_amount WHERE account = c;
        UPDATE accounts SET debits = debits + p_amount WHERE account = d;
    END IF;
    RETURN true;
END $$;

-- The same with a chain of SHA-256 over all transfers: one head, which every transfer waits for.
CREATE TABLE chain (only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one), head bytea NOT NULL);
INSERT INTO chain (head) VALUES (sha256('genesis'));
CREATE TABLE links (id text PRIMARY KEY, hash bytea NOT NULL);

CREATE FUNCTION transfer_chained(p_id text, p_debit text, p_credit text, p_amount bigint, p_reference text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    next bytea;
BEGIN
    IF NOT transfer(p_id, p_debit, p_credit, p_amount, p_reference) THEN
        RETURN false;
    END IF;
    UPDATE chain SET head = sha256(head || convert_to(
        concat_ws('|', p_id, p_debit, p_credit, p_amount, p_reference), 'UTF8')) RETURNING head INTO next;
    INSERT INTO links (id, hash) VALUES (p_id, next);
    RETURN true;
END $$;

-- Many transfers at once, as sets: the form in which PostgreSQL is fastest. They were copied into `staged` before. Balances are
-- updated in the order of their numbers: quicker where accounts are many, and two batches do not wait for each other for ever. (If they
-- did, PostgreSQL would refuse one, and the run would fail.) To lock them in that order first took a third longer.
CREATE FUNCTION transfer_staged() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
BEGIN
    WITH fresh AS (
        INSERT INTO transfers (id, debit, credit, amount, reference)
        SELECT s.id, d.account, c.account, s.amount, s.reference
        FROM staged s JOIN accounts d ON d.name = s.debit JOIN accounts c ON c.name = s.credit
        ON CONFLICT (id) DO NOTHING
        RETURNING debit, credit, amount
    ), moved AS MATERIALIZED (
        SELECT account, sum(debit) AS debits, sum(credit) AS credits
        FROM (SELECT debit AS account, amount AS debit, 0 AS credit FROM fresh
              UNION ALL SELECT credit, 0, amount FROM fresh) AS sides
        GROUP BY account ORDER BY account
    ), balances AS (
        UPDATE accounts a SET debits = a.debits + m.debits, credits = a.credits + m.credits
        FROM moved m WHERE a.account = m.account
    )
    SELECT count(*) INTO done FROM fresh;
    RETURN done;
END $$;

CREATE FUNCTION transfer_staged_chained() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    done bigint;
    last bytea;
    row  record;
BEGIN
    SELECT head INTO last FROM chain FOR UPDATE;
    done := transfer_staged();
    FOR row IN SELECT * FROM staged LOOP
        last := sha256(last || convert_to(
            concat_ws('|', row.id, row.debit, row.credit, row.amount, row.reference), 'UTF8'));
        INSERT INTO links (id, hash) VALUES (row.id, last);
    END LOOP;
    UPDATE chain SET head = last;
    RETURN done;
END $$;
