-- Files and pictures. Their bytes are not in the database, but in objects that are named by their hashes.

create table files (
    -- A file that somebody has uploaded, and the message that has it.
    id integer primary key,                  -- random
    room_id integer not null references rooms (id) on delete cascade,
    user_id integer not null references users (id) on delete cascade,
    message_id integer references messages (id) on delete cascade, -- null until it is sent
    name text not null,
    media_type text not null,                -- of a picture that was decoded; otherwise of any bytes
    bytes integer not null,
    hash text not null,                      -- the SHA-256 of the object, in hexadecimal digits
    width integer,                           -- of a picture, as it is shown
    height integer,
    thumbnail text,                          -- the hash of the smaller picture, if there is one
    made_at integer not null
);
create index files_room on files (room_id);
create index files_user on files (user_id);
create index files_message on files (message_id) where message_id is not null;
create index files_waiting on files (made_at) where message_id is null;
create index files_hash on files (hash);
create index files_thumbnail on files (thumbnail) where thumbnail is not null;

create table unused_objects (
    -- The object may have no file any more. Once it is claimed, it is being deleted, and no file gets it.
    hash text primary key,
    since integer not null,
    claimed_at integer
) without rowid;

create trigger files_deleted after delete on files begin
    insert or ignore into unused_objects (hash, since)
    select value, cast(unixepoch('subsec') * 1000 as integer)
    from json_each(json_array(old.hash, old.thumbnail)) where value is not null;
end;

-- The files of a message, as it shows them: copied from `files`, so that a page is read without them.
alter table messages add column files text;
