-- Reactions to messages.

create table reactions (
    -- This user reacted to the message with this emoji.
    id integer primary key,                  -- grows: the first come first
    message_id integer not null references messages (id) on delete cascade,
    room_id integer not null,                -- the message's
    user_id integer not null references users (id) on delete cascade,
    emoji text not null,
    name text not null,                      -- the name the user had then
    created_at integer not null,
    unique (message_id, emoji, user_id)
);
create index reactions_first on reactions (message_id, emoji, id);
create index reactions_of_message on reactions (message_id, id);
create index reactions_mine on reactions (user_id, room_id, message_id);

-- The reactions as they are shown: a JSON array of [emoji, count, [name, ...]] with the first names, in
-- the order in which each emoji was first used. Null for none.
alter table messages add column reactions text;
-- The room's version of the last change of the message's text.
alter table messages add column worded integer not null default 0;
update messages set worded = changed;
create index messages_worded on messages (room_id, worded);
