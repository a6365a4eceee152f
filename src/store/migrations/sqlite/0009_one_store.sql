-- The tables as PostgreSQL has them, so that each operation has one SQL text for both.

-- The client left because its node ended. The person keeps the display name for a while longer.
alter table clients add column cut_off integer not null default 0 check (cut_off in (0, 1));

drop index users_free;
create index users_free on users (shuffle) where free;

-- The audit log of what moderators did.
alter table deeds rename to audit_log;
alter table audit_log rename column deed to action;
