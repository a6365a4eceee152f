-- What moderators did, in words that say what was meant then.
alter table deeds rename to audit_log;
alter table audit_log rename column deed to action;
-- For nodes of the version before, while there still are some.
create view deeds as select id, at, moderator_id, moderator, action as deed from audit_log;
