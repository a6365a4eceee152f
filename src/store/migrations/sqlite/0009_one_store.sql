-- The tables as PostgreSQL has them, so that each act is one text for both.

-- Its node has ended, rather than its socket: for a moment more they keep their display name.
alter table clients add column cut_off integer not null default 0 check (cut_off in (0, 1));

drop index users_free;
create index users_free on users (shuffle) where free;

-- What moderators did, in words that say what was meant then.
alter table deeds rename to audit_log;
alter table audit_log rename column deed to action;
