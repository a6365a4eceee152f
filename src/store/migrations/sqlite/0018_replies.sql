-- Replies.

-- The message of the same room that this one replies to. Not declared as a reference: messages are never
-- deleted, and an index on it would serve nothing else.
alter table messages add column reply_to integer;
