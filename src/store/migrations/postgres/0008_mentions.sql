-- The text of messages as it is shown, and whom it mentions.

-- The text as HTML; null: it is rendered when it is read.
alter table messages add column html text;
-- The version of the text that this is of, as in worded. Versions before this one do not set it.
alter table messages add column drawn bigint;
-- The message mentions everybody in the group.
alter table messages add column here boolean not null default false;
create index messages_here on messages (room_id, id) where here;

create table mentions (
    -- The message mentions this user, who may read the room and is not the author.
    user_id bigint not null references users (id) on delete cascade,
    message_id bigint not null references messages (id) on delete cascade,
    room_id bigint  not null,                -- the message's
    primary key (user_id, message_id)
);
create index mentions_in_room on mentions (user_id, room_id, message_id);
create index mentions_of_message on mentions (message_id);
