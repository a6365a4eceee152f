-- The text of messages as it is shown, and whom it mentions.

-- The text as HTML; null: it is rendered when it is read.
alter table messages add column html text;
-- The version of the text that this is of, as in worded. Versions before this one do not set it.
alter table messages add column drawn integer;
-- The message mentions everybody in the group.
alter table messages add column here integer not null default 0 check (here in (0, 1));
create index messages_here on messages (room_id, id) where here;

create table mentions (
    -- The message mentions this user, who may read the room and is not the author.
    user_id integer not null references users (id) on delete cascade,
    message_id integer not null references messages (id) on delete cascade,
    room_id integer not null,                -- the message's
    primary key (user_id, message_id)
) without rowid;
create index mentions_in_room on mentions (user_id, room_id, message_id);
create index mentions_of_message on mentions (message_id);
