-- The audit log of what moderators did.
alter table deeds rename to audit_log;
alter table audit_log rename column deed to action;
-- For nodes of the previous version, while some are still running.
create view deeds as select id, at, moderator_id, moderator, action as deed from audit_log;
