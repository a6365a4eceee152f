-- What people have missed in groups, and the topics of groups.

alter table rooms add column topic text;         -- of a group: what it is about, in one line
alter table rooms add column made_by bigint;     -- of a group: the user who created it, if it was a person

-- The user belongs to a group from the first time they enter it until they leave it. read_message_id says
-- up to where they have read; a row that is left keeps the group out of their list.
alter table users_subscribed add column left_at bigint;
-- News of the room is not shown.
alter table users_subscribed add column muted boolean not null default false;

-- What was written before this version counts as read.
update users_subscribed set read_message_id =
    coalesce((select max(id) from messages m where m.room_id = users_subscribed.room_id), 0)
where with_id is null;
